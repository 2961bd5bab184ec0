# SPDX-License-Identifier: Apache-2.0
"""Where the programs under test are: FETTLE_BUILD names the build folder."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def build_dir() -> pathlib.Path:
    """The build folder: $FETTLE_BUILD, else build/cuda, else build/cpu."""
    if named := os.environ.get("FETTLE_BUILD"):
        return (ROOT / named).resolve()
    cuda = ROOT / "build" / "cuda"
    return cuda if cuda.exists() else ROOT / "build" / "cpu"


@pytest.fixture(scope="session")
def fettle(build_dir: pathlib.Path) -> pathlib.Path:
    """The `fettle` program."""
    program = build_dir / "fettle"
    assert program.exists(), f"{program} is missing: build it first"
    return program
