# SPDX-License-Identifier: Apache-2.0
"""Checks that each module includes only the layers it stands on.

A module may include itself and every module on which its own layers stand;
stages never include each other. Vendor headers are named in one place, and the
kernels of a device know no torch. Prints file:line: what is wrong and what is
allowed; exits 1 if it printed anything.
"""

import pathlib
import re

from source_files import CPP_SUFFIXES, Finding, run_check, source_files

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^">]+)[">]')

STAGES = ("analyze", "trim", "quant", "tune", "export")
DIRECT = {
    "core": (),
    "io": ("core",),
    "store": ("io",),
    "text": ("core",),
    "kernels": ("core",),
    "model": ("store", "kernels"),
    "artifact": ("core", "io", "model"),
    "sweep": ("model", "text"),
    **{stage: ("sweep", "artifact") for stage in STAGES},
    "cli": STAGES,
}
# The loops of a device are reached through the contracts above them.
KERNEL_PARTS = ("kernels/cpu/", "kernels/gpu/", "kernels/no_gpu/")
TORCH = re.compile(r"(ATen|torch|c10|caffe2)/")
VENDOR = re.compile(r"(^|/)(cuda|hip|cublas|cudnn|curand|rocblas|nv)", re.ASCII)
VENDOR_HOME = "kernels/gpu/runtime.h"


def reachable(module: str) -> set[str]:
    """`module` and every module it may include, in any number of steps."""
    found = {module}
    for lower in DIRECT[module]:
        found |= reachable(lower)
    return found


ALLOWED = {module: reachable(module) for module in DIRECT}


def module_of(path: str) -> str | None:
    """The module of a file in the tree; None for tests, tools and main."""
    parts = path.split("/")
    if parts[0] == "kernels":
        return "kernels"
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def target_module(include: str) -> str | None:
    first = include.split("/")[0]
    return first if "/" in include and first in DIRECT else None


def in_order(modules: set[str]) -> str:
    return ", ".join(name for name in DIRECT if name in modules)


def complaint(path: str, quoted: bool, include: str) -> str | None:
    """What is wrong with `include` in the file `path`; None if nothing is."""
    module = module_of(path)
    if include == "torch/torch.h":
        return "torch/torch.h takes 10 s to read: name the ATen header needed"
    if VENDOR.search(include) and path != VENDOR_HOME:
        return f"{include} is a vendor's header: only {VENDOR_HOME} names those"
    if path.startswith(("kernels/gpu/", "kernels/cpu/")) and TORCH.match(include):
        return f"{include} is a torch header: {path.rsplit('/', 1)[0]} takes raw pointers only"
    if not quoted or module is None:
        return None
    if module not in DIRECT:
        return f"module {module} is not in the table of tools/check_includes.py"
    target = target_module(include)
    if target is None:
        return f'"{include}" is no "module/file.h" of the modules {in_order(set(DIRECT))}'
    if target not in ALLOWED[module]:
        return f"{module} may not include {target}: allowed are {in_order(ALLOWED[module])}"
    if module != "kernels" and include.startswith(KERNEL_PARTS):
        return f"{include} is internal to kernels: include the op's contract, kernels/<op>.h"
    return None


def check(root: pathlib.Path) -> list[Finding]:
    findings = []
    for path, text in source_files(root):
        if pathlib.PurePath(path).suffix not in CPP_SUFFIXES:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := INCLUDE.match(line):
                message = complaint(path, match[1] == '"', match[2])
                if message:
                    findings.append(Finding(path, number, message))
    return findings


if __name__ == "__main__":
    run_check(__doc__.splitlines()[0], check)
