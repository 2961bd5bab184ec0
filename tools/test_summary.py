# SPDX-License-Identifier: Apache-2.0
"""Adds up the steps of tools/test and ends in "N passed, M failed, K skipped".

    test_summary.py NAME STATUS REPORT [NAME STATUS REPORT ...]

REPORT is a JUnit file of pytest or Catch2, a folder of them, or "-". A step that failed without a
failed test in its report counts as one failure. Exits 1 if anything failed.
"""

import os
import pathlib
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter


def outcome(case: ElementTree.Element, gpu_must_run: bool) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    # pytest has an element for it; Catch2 has none, and the test prints it.
    skip = case.find("skipped")
    printed = case.findtext("system-out") or ""
    if skip is None and "skipped: no GPU" not in printed:
        return "passed"
    reason = printed if skip is None else skip.get("message", "")
    return "failed" if gpu_must_run and "no GPU" in reason else "skipped"


def cases_of(file: pathlib.Path) -> list[ElementTree.Element]:
    """None where the program ended before its report did: its status tells."""
    try:
        return list(ElementTree.parse(file).iter("testcase"))
    except (FileNotFoundError, ElementTree.ParseError):
        return []


def what_failed(case: ElementTree.Element) -> str:
    """What Catch2 says of it, which is nowhere else; pytest prints its own."""
    return "\n".join(
        "  " + line
        for failure in case.iter("failure")
        if failure.get("type") and (text := failure.text)
        for line in text.strip().splitlines()
    )


def step_outcomes(
    name: str, status: int, report: str, gpu_must_run: bool
) -> list[tuple[str, str]]:
    """(outcome, name) of each test of a step, or of the step as a whole."""
    found = []
    path = pathlib.Path(report)
    for file in sorted(path.glob("*.xml")) if path.is_dir() else [path]:
        for case in cases_of(file) if report != "-" else []:
            label = f"{name}: {case.get('classname', '')} {case.get('name')}"
            if detail := what_failed(case):
                label += "\n" + detail
            found.append((outcome(case, gpu_must_run), label))
    if status != 0 and all(result != "failed" for result, _ in found):
        found.append(("failed", f"{name}: exit status {status}"))
    return found


def main(arguments: list[str]) -> int:
    gpu_must_run = bool(os.environ.get("FETTLE_TEST_DEVICE"))
    counts: Counter[str] = Counter()
    for name, status, report in zip(*[iter(arguments)] * 3, strict=True):
        for result, label in step_outcomes(name, int(status), report, gpu_must_run):
            counts[result] += 1
            if result == "failed":
                print(f"FAILED {label}")
    print(
        f"{counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['skipped']} skipped"
    )
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
