# SPDX-License-Identifier: Apache-2.0
"""Checks what the house style says about files and can be counted.

Lengths of files, headers and functions, the licence line, names, and that
library code neither prints nor exits. Prints file:line: what was expected and
found; exits 1 if it printed anything.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

from source_files import CPP_SUFFIXES, Finding, run_check, source_files

LICENCE = "SPDX-License-Identifier: Apache-2.0"
MAX_FILE_LINES = 500
MAX_HEADER_LINES = 150
MAX_FUNCTION_LINES = 60  # a function stays below
VAGUE = re.compile(r"(^|_)(utils?|helpers?|misc|common_stuff)($|_)")
NAMESPACE = re.compile(r"\s*namespace\s+([\w:]+)\s*{")
TYPE = re.compile(r"(template\s*<.*>\s*)?(class|struct|union|enum|namespace)\b")
# Only the command line prints or exits.
OUTSIDE_CLI = re.compile(
    r"std::(cout|cerr|clog)\b|\bstd::(exit|quick_exit|abort)\s*\("
    r"|(?<![\w:])(exit|abort|_exit|puts)\s*\(|(?<!\w)printf\s*\("
)


def licence_findings(path: str, lines: list[str]) -> Iterator[Finding]:
    place = 1 if lines and lines[0].startswith("#!") else 0
    if len(lines) <= place or LICENCE not in lines[place]:
        yield Finding(path, place + 1, f"expected the line '{LICENCE}' here")


def length_findings(path: str, lines: list[str]) -> Iterator[Finding]:
    limit = MAX_HEADER_LINES if path.endswith(".h") else MAX_FILE_LINES
    if len(lines) > limit:
        yield Finding(
            path, limit + 1, f"at most {limit} lines, found {len(lines)}: split it"
        )


def name_findings(path: str, lines: list[str]) -> Iterator[Finding]:
    for part in pathlib.PurePath(path).with_suffix("").parts:
        if VAGUE.search(part):
            yield Finding(path, 1, f"'{part}' says nothing: name what it holds")
    for number, line in enumerate(lines, 1):
        match = NAMESPACE.match(line)
        if match and any(VAGUE.search(n) for n in match[1].split("::")):
            yield Finding(
                path, number, f"namespace '{match[1]}' says nothing: name what it holds"
            )


def header_findings(path: str, lines: list[str]) -> Iterator[Finding]:
    # Highway reads *-inl.h once per instruction set.
    if not path.endswith("-inl.h") and "#pragma once" not in lines:
        yield Finding(path, 1, "expected '#pragma once'")
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*using namespace\b", line):
            yield Finding(path, number, "'using namespace' in a header")


def cpp_functions(lines: list[str]) -> Iterator[tuple[int, int]]:
    """First line and length of each function at namespace scope.

    Relies on the layout that clang-format gives: namespace bodies are not
    indented, so a definition begins in column 0 and ends with '}' there.
    """
    start, opener = None, ""
    for number, line in enumerate(lines, 1):
        if start is None and re.match(r"\w", line) and not line.startswith("namespace"):
            start = number
        if start is None:
            continue
        if not opener and line.endswith("{"):
            opener = " ".join(lines[start - 1 : number])
        if opener and line in ("}", "};"):
            # A function's braces follow its parameters; a table's follow '='.
            if not TYPE.match(opener) and re.search(r"\)[^=()]*{$", opener):
                yield start, number - start + 1
            start, opener = None, ""
        elif not opener and line.endswith((";", "}")):
            start = None


def python_functions(text: str) -> Iterator[tuple[int, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1


def function_findings(path: str, text: str) -> Iterator[Finding]:
    functions = (
        python_functions(text)
        if path.endswith(".py")
        else cpp_functions(text.splitlines())
    )
    for line, length in functions:
        if length >= MAX_FUNCTION_LINES:
            yield Finding(
                path,
                line,
                f"a function stays below {MAX_FUNCTION_LINES} lines, found {length}",
            )


def output_findings(path: str, lines: list[str]) -> Iterator[Finding]:
    for number, line in enumerate(lines, 1):
        match = OUTSIDE_CLI.search(line.split("//")[0])
        if match:
            yield Finding(
                path,
                number,
                f"'{match[0]}' in library code: only src/cli prints or exits",
            )


def check(root: pathlib.Path) -> list[Finding]:
    findings: list[Finding] = []
    for path, text in source_files(root):
        lines = text.splitlines()
        suffix = pathlib.PurePath(path).suffix
        findings += licence_findings(path, lines)
        findings += length_findings(path, lines)
        findings += name_findings(path, lines)
        if suffix == ".h":
            findings += header_findings(path, lines)
        if suffix == ".py" or suffix in CPP_SUFFIXES:
            findings += function_findings(path, text)
        library = path.startswith(("src/", "kernels/")) and suffix in CPP_SUFFIXES
        if library and not path.startswith("src/cli/") and path != "src/main.cpp":
            findings += output_findings(path, lines)
    return findings


if __name__ == "__main__":
    run_check(__doc__.splitlines()[0], check)
