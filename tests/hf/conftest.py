# SPDX-License-Identifier: Apache-2.0
"""Where the programs under test are, and what they compute on.

FETTLE_BUILD names the build folder. FETTLE_TEST_DEVICE has the program compute
on a card: `cuda`, the machine's own, or `emulated`, by the CPU.
"""

import os
import pathlib

import expert_trace
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEVICE = os.environ.get("FETTLE_TEST_DEVICE")


@pytest.fixture(scope="session")
def build_dir() -> pathlib.Path:
    """The build folder: $FETTLE_BUILD, else build/cuda, else build/cpu."""
    if named := os.environ.get("FETTLE_BUILD"):
        return (ROOT / named).resolve()
    cuda = ROOT / "build" / "cuda"
    return cuda if cuda.exists() else ROOT / "build" / "cpu"


@pytest.fixture(scope="session")
def card(build_dir: pathlib.Path) -> dict[str, str]:
    """The environment in which `--device cuda` finds a card."""
    if DEVICE == "cuda":
        return {}
    plugin = build_dir / "tests/emulated_gpu/libfettle_emulated.so"
    assert plugin.exists(), f"{plugin} is missing: build it first"
    return {"FETTLE_PLUGIN_PATH": str(plugin)}


@pytest.fixture(scope="session")
def fettle(
    build_dir: pathlib.Path,
    card: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    """The `fettle` program; on a card in fp32, as the references are."""
    program = build_dir / "fettle"
    assert program.exists(), f"{program} is missing: build it first"
    if not DEVICE:
        return program
    script = tmp_path_factory.mktemp("card") / "fettle"
    settings = " ".join(f"{key}='{value}'" for key, value in card.items())
    script.write_text(
        f"#!/bin/sh\n{settings} exec '{program}' \"$@\" "
        "--device cuda --compute-dtype float32\n"
    )
    script.chmod(0o755)
    return script


@pytest.fixture(scope="session")
def probe(build_dir: pathlib.Path, card: dict[str, str]):
    """Runs fettle_probe, on the CPU or a card, and returns its tensors."""

    def run(command: str, model: pathlib.Path, ids, device: str):
        return expert_trace.probe(build_dir, command, model, ids, device, card)

    return run
