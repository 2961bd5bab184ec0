# SPDX-License-Identifier: Apache-2.0
"""The wheel, installed into an environment of its own, is the whole program."""

import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True,
        timeout=300, **options)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = os.environ.get("FETTLE_BUILD", "cpu")
    wheel = run(ROOT / "tools" / "wheel", folder,
                env={**os.environ, "FETTLE_PRESET": pathlib.Path(build).name})
    run(sys.executable, "-m", "venv", folder / "fresh")
    run(folder / "fresh" / "bin" / "pip", "install", "-q", "--no-deps",
        wheel.stdout.strip())
    # What the wheel depends on, as it is in the environment of the tests.
    packages = next((folder / "fresh" / "lib").glob("python3*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "fresh"


# Nothing of the build: the checkout is not the working folder either.
def fettle(environment: pathlib.Path, folder: pathlib.Path, *arguments) -> str:
    clean = {key: value for key, value in os.environ.items()
             if not key.startswith("FETTLE_") and key != "LD_LIBRARY_PATH"}
    return run(environment / "bin" / "fettle", *arguments, cwd=folder,
               env={**clean, "PATH": "/usr/bin:/bin"}).stdout


def test_the_installed_command_evaluates(environment, tmp_path):
    rows = [{"text": "The square of 12 is 144."},
            {"messages": [{"role": "user", "content": "What is 2 + 3?"},
                          {"role": "assistant", "content": "5"}]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = json.loads(fettle(
        environment, tmp_path, "eval", ROOT / "demo" / "model", "--data",
        "rows.jsonl", "--quiet", "--json", "-"))
    assert out["files"][0]["tokens"] > 10


def test_the_program_names_no_folder_of_the_machine_that_built_it(environment):
    package = next(environment.glob("lib/python3*/site-packages/fettle"))
    paths = run("readelf", "-d", package / "bin" / "fettle").stdout
    found = [line for line in paths.splitlines() if "RUNPATH" in line or "RPATH" in line]
    assert len(found) == 1
    assert "[$ORIGIN/../lib/fettle:$ORIGIN/../../torch/lib]" in found[0]
    needed = re.findall(r"NEEDED.*\[(.*)\]", paths)
    for name in ("yaml-cpp", "cpp-httplib", "ssl", "brotlidec"):
        assert any(one.startswith(f"lib{name}.") for one in needed)
        assert any(package.glob(f"lib/fettle/lib{name}.*"))
