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


@pytest.fixture(scope="session")
def card(build_dir: pathlib.Path) -> dict[str, str]:
    """The environment in which `--device cuda` finds a card: the machine's own
    where FETTLE_TEST_DEVICE is cuda, else one that the CPU emulates."""
    if os.environ.get("FETTLE_TEST_DEVICE") == "cuda":
        return dict(os.environ)
    plugin = build_dir / "tests/emulated_gpu/libfettle_emulated.so"
    assert plugin.exists(), f"{plugin} is missing: build it first"
    return {**os.environ, "FETTLE_PLUGIN_PATH": str(plugin)}
