# SPDX-License-Identifier: Apache-2.0
"""Where the programs that the benches drive were built."""

import os
import pathlib


def find(program):
    """Path of a built program: of FETTLE_BUILD, or of the first preset."""
    root = pathlib.Path(__file__).resolve().parents[2]
    named = os.environ.get("FETTLE_BUILD")
    for candidate in [named] if named else ["build/cuda", "build/cpu"]:
        if (root / candidate / program).exists():
            return root / candidate / program
    raise SystemExit(f"{program} isn't built: run tools/setup")
