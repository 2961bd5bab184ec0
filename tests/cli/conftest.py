# SPDX-License-Identifier: Apache-2.0
"""Runs the program as a person does, on the bundled model."""

import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "demo" / "model"
HELD = ROOT / "demo" / "data" / "held_math.jsonl"
TRAIN = ROOT / "demo" / "data" / "train_math.jsonl"


@dataclass
class Result:
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def program() -> pathlib.Path:
    named = os.environ.get("FETTLE_BUILD")
    cuda = ROOT / "build" / "cuda"
    default = cuda if (cuda / "fettle").exists() else ROOT / "build" / "cpu"
    path = ((ROOT / named) if named else default) / "fettle"
    assert path.exists(), f"{path} is missing: build it first"
    return path


@pytest.fixture(scope="session")
def fettle(program):
    def run(*arguments, **options) -> Result:
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True,
            timeout=300, **options)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def model(tmp_path) -> pathlib.Path:
    """A copy of the bundled model, to be damaged."""
    return pathlib.Path(shutil.copytree(MODEL, tmp_path / "model"))


@pytest.fixture(scope="session")
def scores(fettle, tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("analyze") / "scores"
    done = fettle("analyze", MODEL, "--data", HELD, "--tokens", 2048,
                  "--seq-len", 128, "--out", out, "--quiet")
    assert done.status == 0, done.err
    return out
