# SPDX-License-Identifier: Apache-2.0
"""What a stopped run saved is gone on with, or thrown away when that is asked
for; a folder that nobody can use is not left."""

import json
import pathlib
import subprocess
import time

import pytest
from conftest import HELD, MODEL, TRAIN

TUNE = ("tune", MODEL, "--data", TRAIN, "--method", "lora", "--rank", 2,
        "--steps", 3, "--tokens-per-step", 128, "--seq-len", 64,
        "--save-every", 1, "--warmup-steps", 1)
ANALYZE = ("analyze", MODEL, "--data", HELD, "--tokens", 512, "--seq-len", 64,
           "--scores", "reap", "--chunk-tokens", 64)
QUANT = ("quant", MODEL, "--data", HELD, "--tokens", 512, "--seq-len", 64)


def killed(program, command, out, sign):
    """Killed as soon as OUT.partial holds a file of that name."""
    process = subprocess.Popen(
        [program, *map(str, command), "--out", str(out), "--quiet"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = pathlib.Path(f"{out}.partial")
    while not list(partial.glob(sign)):
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.002)
    process.kill()
    process.wait()
    return partial


@pytest.mark.parametrize("command, sign, word", [
    (TUNE, "state-0*1/state.json", "a run stopped after step "),
    (ANALYZE, "state-0*1/state.json", "a run stopped after chunk "),
    (QUANT, "packed-00001*", "part"),
])
def test_what_was_saved_is_kept(program, fettle, tmp_path, command, sign, word):
    partial = killed(program, command, tmp_path / "out", sign)
    for other in (command, ("export", MODEL)):
        done = fettle(*other, "--out", tmp_path / "out")
        assert done.status == 1 and word in done.err, done.err
        assert list(partial.glob(sign.replace("0*1", "0*")))
    done = fettle(*command, "--out", tmp_path / "out", "--resume", "--restart")
    assert done.status == 2, done.err
    done = fettle(*command, "--out", tmp_path / "out", "--restart", "--quiet")
    assert done.status == 0, done.err
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_resume_of_something_else_keeps_the_state(program, fettle, tmp_path):
    partial = killed(program, TUNE, tmp_path / "out", "state-0*1/state.json")
    done = fettle(*TUNE, "--weight-decay", 0.5, "--out", tmp_path / "out",
                  "--resume")
    assert done.status == 1 and "options/weight_decay" in done.err, done.err
    assert list(partial.glob("state-*"))


@pytest.mark.parametrize("command", [
    ("tune", MODEL, "--data", "DATA", "--steps", 1),
    ("analyze", MODEL, "--data", "DATA"),
    ("quant", MODEL, "--data", "DATA"),
    ("quant", MODEL, "--data", HELD, "--tokens", 64, "--budget", "1KiB"),
    ("export", MODEL, "--format", "gptq"),
])
def test_a_refused_command_leaves_nothing(fettle, tmp_path, command):
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": ""}\n')
    out = tmp_path / "out"
    done = fettle(*(data if word == "DATA" else word for word in command),
                  "--out", out)
    assert done.status == 1, done.err
    left = [p for p in tmp_path.iterdir() if p != data]
    # What was measured for a budget serves the next one.
    assert left == [] or [p.name for p in left[0].iterdir()] == [
        ".fettle-lock", "quant_errors.json"]


def test_a_killed_merge_is_gone_on_with(fettle, tmp_path):
    out, merged, peft = (tmp_path / n for n in ("out", "merged", "peft"))
    assert fettle(*TUNE, "--out", out, "--quiet").status == 0
    # What a kill in the merge leaves.
    (tmp_path / "merged.partial").mkdir()
    (tmp_path / "merged.partial" / ".fettle-lock").write_text("")
    (tmp_path / "merged.partial" / "model.safetensors").write_text("half")
    more = ("--merge", merged, "--peft", peft)
    done = fettle(*TUNE, "--out", out, *more, "--lr", 0.5, "--resume")
    assert done.status == 1 and "options/lr" in done.err, done.err
    done = fettle(*TUNE, "--out", out, *more, "--resume", "--json", "-")
    assert done.status == 0, done.err
    assert json.loads(done.out)["steps"] == 3
    assert (merged / "model.safetensors").exists()
    assert (peft / "adapter_model.safetensors").exists()
    assert not (tmp_path / "merged.partial").exists()
    done = fettle(*TUNE, "--out", out, *more, "--resume")
    assert done.status == 0, done.err
