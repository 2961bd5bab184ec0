# SPDX-License-Identifier: Apache-2.0
"""The command line: what it refuses before any work, and what it says."""

import pytest
from conftest import HELD, MODEL

# Each would read a model for a while, if it got so far.
WRITING = {
    "analyze": ("--data", HELD),
    "trim": ("--scores", MODEL, "--keep", 0.5),
    "quant": ("--bits", "int4"),
    "tune": ("--data", HELD),
    "merge": ("--adapter", MODEL),
    "export": (),
}


@pytest.mark.parametrize("command", WRITING)
def test_a_bad_out_is_refused_before_any_work(fettle, tmp_path, command):
    run = (command, tmp_path / "no_model", *WRITING[command], "--out")
    empty = fettle(*run, "")
    assert empty.status == 2 and "--out: expected" in empty.err
    there = fettle(*run, tmp_path)
    assert there.status == 1 and "exists already" in there.err
    (tmp_path / "file").write_text("x")
    below = fettle(*run, tmp_path / "file" / "out")
    assert below.status == 1 and "is not a folder" in below.err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_other_targets_are_judged_as_early(fettle, tmp_path):
    scored = ("eval", tmp_path / "no_model", "--data", HELD, "--json")
    assert "--json: expected" in fettle(*scored, "").err
    assert "is a folder" in fettle(*scored, tmp_path).err
    assert "there is no folder" in fettle(*scored, tmp_path / "a" / "b").err
    tune = ("tune", tmp_path / "no_model", "--data", HELD, "--method", "lora",
            "--out", tmp_path / "out")
    for option in ("--merge", "--peft"):
        refused = fettle(*tune, option, tmp_path)
        assert refused.status == 1 and option in refused.err
        same = fettle(*tune, option, tmp_path / "out")
        assert same.status == 2 and "the same folder as --out" in same.err
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_there_are_told_at_once(fettle, tmp_path):
    none = tmp_path / "none"
    for run in (
            ("eval", none, "--data", none),
            ("eval", none, "--data", HELD, "--against", none),
            ("analyze", none, "--data", none, "--out", tmp_path / "out"),
            ("quant", none, "--plan", none, "--out", tmp_path / "out"),
            ("tune", none, "--data", HELD, "--teacher", none, "--out",
             tmp_path / "out")):
        refused = fettle(*run)
        assert refused.status == 1 and "there is no such" in refused.err
        assert str(none) in refused.err
    assert not list(tmp_path.iterdir())
