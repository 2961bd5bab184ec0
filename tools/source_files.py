# SPDX-License-Identifier: Apache-2.0
"""Which files of a tree are sources, and what a check says about one."""

import argparse
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

CPP_SUFFIXES = {".h", ".cpp", ".cu"}
SUFFIXES = CPP_SUFFIXES | {".py", ".sh", ".cmake"}
SKIPPED_FOLDERS = {"build", "__pycache__"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something wrong at a line (counted from 1) of a file."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def is_source(path: pathlib.Path) -> bool:
    """By suffix, by name, or, without a suffix, by a first line `#!`."""
    if path.suffix in SUFFIXES or path.name == "CMakeLists.txt":
        return True
    if path.suffix:
        return False
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def source_files(root: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Name relative to `root`, with slashes, and text of each source, sorted."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [
            f
            for f in folders
            if f not in SKIPPED_FOLDERS and (f == ".ci" or f[0] != ".")
        ]
        found += [pathlib.Path(folder, name) for name in names]
    for path in sorted(found):
        if path.is_symlink() or not path.is_file() or not is_source(path):
            continue
        yield path.relative_to(root).as_posix(), path.read_text("utf-8")


def run_check(
    description: str, check: Callable[[pathlib.Path], list[Finding]]
) -> None:
    """Prints what `check` finds in the tree and exits 1 if that is anything."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "root",
        nargs="?",
        type=pathlib.Path,
        default=pathlib.Path(__file__).resolve().parents[1],
        help="the tree to check (this checkout)",
    )
    findings = check(parser.parse_args().root)
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)
