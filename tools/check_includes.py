# SPDX-License-Identifier: Apache-2.0
"""Checks that each module includes only the layers it stands on.

A module may include itself and every module on which its own layers stand;
stages never include each other. The folders of a module have an order of their
own. Vendor headers are named in one place, and the
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
    "artifact": ("core", "io", "model", "ranks"),
    "ranks": ("core",),
    "sweep": ("model", "text", "ranks"),
    "decode": ("model", "text"),
    "serve": ("decode",),
    **{stage: ("sweep", "artifact") for stage in STAGES},
    "chain": (*STAGES, "decode"),
    "cli": ("chain", "serve"),
}
# Folders of a module by the folders of the same module that they include; the
# module's own folder stands above them.
FOLDERS = {
    "model/family": (),
    "model/weights": ("model/family",),
    "model/layers": ("model/weights",),
    "model": ("model/layers",),
    "tune/options": (),
    "tune/part": (),
    "tune/whole": ("tune/part",),
    "tune/low_rank": ("tune/whole",),
    "tune/sparse": ("tune/whole",),
    "tune/condenser": ("tune/part",),
    "tune/adapter": ("tune/options", "tune/low_rank", "tune/sparse", "tune/condenser"),
    "tune/method": ("tune/options", "tune/low_rank", "tune/sparse", "tune/condenser"),
    "tune": ("tune/adapter", "tune/method"),
}
# The loops of a device are reached through the contracts above them.
KERNEL_PARTS = ("kernels/cpu/", "kernels/gpu/", "kernels/no_gpu/")
TORCH = re.compile(r"(ATen|torch|c10|caffe2)/")
VENDOR = re.compile(r"(^|/)(cuda|hip|cublas|cudnn|curand|rocblas|nv)", re.ASCII)
VENDOR_HOME = "kernels/gpu/runtime.h"


def reachable(name: str, direct: dict[str, tuple[str, ...]]) -> set[str]:
    """`name` and all that it may include, in any number of steps."""
    found = {name}
    for lower in direct[name]:
        found |= reachable(lower, direct)
    return found


ALLOWED = {module: reachable(module, DIRECT) for module in DIRECT}
ALLOWED_FOLDERS = {folder: reachable(folder, FOLDERS) for folder in FOLDERS}


def module_of(path: str) -> str | None:
    """The module of a file in the tree; None for tests, tools and main."""
    parts = path.split("/")
    if parts[0] == "kernels":
        return "kernels"
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def target_module(include: str) -> str | None:
    first = include.split("/")[0]
    return first if "/" in include and first in DIRECT else None


def folder_of(path: str) -> str | None:
    """The longest folder of FOLDERS that holds `path`, a path below src/."""
    parents = [str(parent) for parent in pathlib.PurePosixPath(path).parents]
    return next((parent for parent in parents if parent in FOLDERS), None)


def in_order(names: set[str], table: dict[str, tuple[str, ...]] = DIRECT) -> str:
    return ", ".join(name for name in table if name in names)


def folder_complaint(path: str, include: str) -> str | None:
    """What is wrong between two folders of one module; None if nothing is."""
    folder = folder_of(path.removeprefix("src/"))
    target = folder_of(include)
    if folder is None or target is None or folder.split("/")[0] != target.split("/")[0]:
        return None
    allowed = ALLOWED_FOLDERS[folder]
    if target in allowed:
        return None
    return f"{folder} may not include {target}: allowed are {in_order(allowed, FOLDERS)}"


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
    return folder_complaint(path, include)


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
