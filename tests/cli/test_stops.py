# SPDX-License-Identifier: Apache-2.0
"""Stops the program before every call that changes its output folder, and goes
on from what lies there then: that is what a kill would have left.

By default in some of the calls at the end of three commands; from every call of
all, writes and syncs too, with FETTLE_ALL_STOPS=1.
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest
from conftest import HELD, MODEL, TRAIN

# Only the clock tells two runs apart here.
MEASURED = {"metrics.jsonl", "timings.json", "report.html"}

SHORT = ("--data", TRAIN, "--steps", 2, "--tokens-per-step", 128, "--seq-len",
         64, "--warmup-steps", 1, "--save-every", 1)
BY_LAYER = ("--data", HELD, "--tokens", 256, "--seq-len", 64)
COMMANDS = {
    "usaf": ("tune", MODEL, *SHORT, "--score-sequences", 2, "--router-warmup",
             1, "--eval-data", "FEW", "--eval-every", 1),
    "lora": ("tune", MODEL, *SHORT, "--method", "lora", "--rank", 2),
    "full": ("tune", MODEL, *SHORT, "--method", "full", "--match",
             r"layers\.0\.mlp\.gate", "--embeddings", "frozen"),
    "condenser": ("tune", MODEL, *SHORT, "--method", "usaf+condenser",
                  "--condensers", 1, "--condenser-after", 1,
                  "--score-sequences", 2, "--router-warmup", 0),
    "analyze": ("analyze", MODEL, *BY_LAYER, "--scores", "reap",
                "--chunk-tokens", 128),
    "quant": ("quant", MODEL, *BY_LAYER),
    "trim": ("trim", MODEL, "--scores", "SCORES", "--keep", 0.5),
    "export": ("export", MODEL, "--format", "hf"),
}
EVERYTHING = bool(os.environ.get("FETTLE_ALL_STOPS"))
OFTEN = ("usaf", "analyze", "quant")
RESUMABLE = ("usaf", "lora", "full", "condenser", "analyze", "quant")


def tree_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
            for p in sorted(folder.rglob("*"))}


def digest_of(tree):
    total = hashlib.sha256()
    for name, content in tree.items():
        total.update(repr((name, content)).encode())
    return total.hexdigest()


class Stopped:
    """A run that stops before each change below a folder."""

    def __init__(self, program, command, folder):
        self.log = folder.parent / "log"
        self.log.write_text("")
        library = program.parent / "tests" / "libfettle_stop_at.so"
        assert library.exists(), f"{library} is missing: build it first"
        self.process = subprocess.Popen(
            [program, *map(str, command)], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": str(library),
                 "STOP_BELOW": str(folder), "STOP_LOG": str(self.log)})

    def __iter__(self):
        """The calls, the process halted before each."""
        while True:
            _, status = os.waitpid(self.process.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                error = self.process.stderr.read().decode()
                assert os.waitstatus_to_exitcode(status) == 0, error
                self.process.returncode = 0
                return
            yield self.log.read_text().splitlines()[-1].split(" ")[0]
            os.kill(self.process.pid, signal.SIGCONT)


def check_same(found, meant):
    assert found.keys() == meant.keys()
    for name, content in meant.items():
        if name not in MEASURED:
            assert found[name] == content, name
    if "metrics.jsonl" in meant:
        rows = [[{key: row.get(key) for key in ("step", "loss", "eval")}
                 for row in map(json.loads, tree["metrics.jsonl"].splitlines())]
                for tree in (found, meant)]
        assert rows[0] == rows[1]


def name_the_copy(work):
    """A commit notes which folder it made, and here that is a copy."""
    lock = work / "out.partial" / ".fettle-lock"
    if lock.exists() and lock.read_text():
        found = (work / "out").stat()
        lock.write_text(f"{found.st_dev}:{found.st_ino}\n")


@pytest.mark.parametrize("name", COMMANDS if EVERYTHING else OFTEN)
def test_every_stop(program, fettle, scores, tmp_path, name):
    work = tmp_path / "work"
    work.mkdir()
    few = tmp_path / "few.jsonl"
    few.write_text("".join(HELD.read_text().splitlines(True)[:3]))
    stand_ins = {"SCORES": scores, "FEW": few}
    command = [stand_ins.get(part, part) for part in COMMANDS[name]]
    command += ["--out", work / "out", "--quiet"]
    stops, seen, before = [], set(), ""
    for call in Stopped(program, command, work):
        tree = tree_of(work)
        digest = digest_of(tree)
        changes_names = call not in ("write", "fsync", "fallocate", "ftruncate")
        if digest not in seen and (EVERYTHING or changes_names):
            seen.add(digest)
            left = tmp_path / f"left{len(stops)}"
            shutil.copytree(work, left)
            stops.append((call, left))
        before = call
    assert before, "nothing was changed"
    if not EVERYTHING:
        stops = stops[-1::-2][:9]
    meant = tree_of(work / "out")
    assert list(work.iterdir()) == [work / "out"]
    again = [*command, "--resume"] if name in RESUMABLE else command
    for call, left in stops:
        shutil.rmtree(work)
        left.rename(work)
        was_whole = (work / "out").exists()
        if was_whole:
            check_same(tree_of(work / "out"), meant)
            name_the_copy(work)
        done = fettle(*again)
        if was_whole:
            assert done.status == 1 and "exists already" in done.err
        else:
            assert done.status == 0, (call, done.err)
        assert list(work.iterdir()) == [work / "out"]
        check_same(tree_of(work / "out"), meant)
    print(f"{name}: {len(stops)} stops")
