# SPDX-License-Identifier: Apache-2.0
"""Analyses killed and resumed, and merged, as a person runs them."""

import json
import re
import subprocess
import time

import pytest
from conftest import HELD, MODEL, TRAIN
from safetensors.torch import load_file

SCORES = "mask_fisher,grad_abs,camera,expert_fisher"
CHUNKS = ("--scores", SCORES, "--tokens", 4096, "--seq-len", 128,
          "--chunk-tokens", 1024, "--quiet")
ARRAYS = "scores.safetensors"


@pytest.fixture(scope="module")
def whole(fettle, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "scores"
    done = fettle("analyze", MODEL, "--data", TRAIN, "--out", out, *CHUNKS)
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="module")
def killed(program, tmp_path_factory):
    """Makes what a run killed after its second chunk leaves."""

    def make(out):
        process = subprocess.Popen(
            [str(a) for a in (program, "analyze", MODEL, "--data", TRAIN,
                              "--out", out, *CHUNKS)],
            stdout=subprocess.DEVNULL)
        partial = out.with_name(out.name + ".partial")
        for _ in range(3000):
            if process.poll() is not None or any(
                    partial.glob("state-0000000[23]")):
                break
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert not out.exists(), "the run ended before it could be killed"
        return partial

    return make


def test_killed_and_resumed_is_the_same(fettle, whole, killed, tmp_path):
    out = tmp_path / "scores"
    killed(out)
    done = fettle("analyze", MODEL, "--data", TRAIN, "--out", out, *CHUNKS,
                  "--resume")
    assert done.status == 0, done.err
    assert (out / ARRAYS).read_bytes() == (whole / ARRAYS).read_bytes()
    assert (out / "scores.json").read_bytes() == (
        whole / "scores.json").read_bytes()
    assert sorted(p.name for p in out.iterdir()) == [
        "report.html", "scores.json", ARRAYS]


def test_resume_of_something_else_is_refused(fettle, killed, tmp_path):
    out = tmp_path / "scores"
    partial = killed(out)
    start = ("analyze", MODEL, "--data", TRAIN, "--out", out, *CHUNKS,
             "--resume")
    for more, word in ((("--seed", 3), "seed"),
                       (("--batch-sequences", 4), "batch_sequences"),
                       (("--data", HELD), "data")):
        done = fettle(*start, *more)
        assert done.status == 1 and word in done.err, done.err
    state = next(partial.glob("state-0000000?")) / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"!")
    done = fettle(*start)
    assert done.status == 1 and "damaged" in done.err
    assert not out.exists()


def test_a_run_without_resume_starts_again(fettle, whole, killed, tmp_path):
    out = tmp_path / "scores"
    killed(out)
    again = ("analyze", MODEL, "--data", HELD, "--out", out, *CHUNKS)
    refused = fettle(*again)
    assert refused.status == 1 and "--restart" in refused.err
    done = fettle(*again, "--restart")
    assert done.status == 0, done.err
    assert (out / ARRAYS).read_bytes() != (whole / ARRAYS).read_bytes()


def test_moments_keep_to_the_budget(fettle, tmp_path):
    done = fettle("analyze", MODEL, "--data", TRAIN, "--scores", "obs,heapr",
                  "--tokens", 4096, "--seq-len", 128, "--ram", "256MiB",
                  "--out", tmp_path / "tight", "--quiet", "--json", "-")
    assert done.status == 0, done.err
    assert json.loads(done.out)["peak_ram_bytes"] < 256 << 20
    done = fettle("analyze", MODEL, "--data", TRAIN, "--scores", "obs",
                  "--tokens", 4096, "--seq-len", 128, "--chunk-tokens", 1024,
                  "--out", tmp_path / "chunks", "--quiet")
    assert done.status == 1 and "all tokens in one chunk" in done.err


def test_domains_are_merged(fettle, whole, tmp_path):
    other, merged = tmp_path / "other", tmp_path / "merged"
    done = fettle("analyze", MODEL, "--data", HELD, "--out", other, *CHUNKS)
    assert done.status == 0, done.err
    done = fettle("analyze", "--merge", whole, other, "--out", merged,
                  "--json", "-")
    assert done.status == 0, done.err
    parts = [json.loads((p / "scores.json").read_text())
             for p in (whole, other)]
    tokens = sum(part["tokens"] for part in parts)
    assert json.loads(done.out)["tokens"] == tokens
    assert "Overlap of domains" in (merged / "report.html").read_text()
    # What trim needs is there.
    done = fettle("trim", MODEL, "--scores", merged, "--score", "mask_fisher",
                  "--keep", 0.5, "--plan-only", "--out", tmp_path / "plan")
    assert done.status == 0, done.err


def test_choices_by_file_are_of_the_tokens_analyzed(fettle, tmp_path):
    out = tmp_path / "scores"
    done = fettle("analyze", MODEL, "--data", HELD, f"{TRAIN}:3", "--by-file",
                  "--scores", "frequency", "--tokens", 4096, "--seq-len", 128,
                  "--out", out, "--quiet")
    assert done.status == 0, done.err
    scores = json.loads((out / "scores.json").read_text())
    files = scores["run"]["by_file"]
    assert [f["file"] for f in files] == [str(HELD), str(TRAIN)]
    held, train = (f["tokens"] for f in files)
    assert held + train == scores["tokens"]
    assert train / held == pytest.approx(3, rel=0.2)
    counts = load_file(out / ARRAYS)["layers.1.tokens"].tolist()
    assert counts == [sum(of) for of in zip(
        *(f["choices"][1] for f in files))]


def test_a_merge_keeps_to_its_budget(fettle, tmp_path):
    parts = []
    for name, data in (("a", TRAIN), ("b", HELD)):
        parts.append(tmp_path / name)
        done = fettle("analyze", MODEL, "--data", data, "--tokens", 1024,
                      "--seq-len", 128, "--keep-moments", "--out", parts[-1],
                      "--quiet")
        assert done.status == 0, done.err
    merge = ("analyze", "--merge", *parts, "--out", tmp_path / "out", "--quiet",
             "--json", "-")
    done = fettle(*merge, "--ram", "200MiB")
    assert done.status == 1 and not (tmp_path / "out.partial").exists()
    least = re.search(r"works is (\d+)MiB", done.err)
    assert least, done.err
    done = fettle(*merge, "--ram", f"{least[1]}MiB")
    assert done.status == 0, done.err
    assert json.loads(done.out)["peak_ram_bytes"] < int(least[1]) << 20


def test_bad_merges(fettle, whole, scores, tmp_path):
    out = tmp_path / "merged"

    def refused(status, *words_of_arguments, word):
        done = fettle("analyze", *words_of_arguments, "--out", out)
        assert done.status == status and word in done.err, done.err
        assert not out.exists()

    refused(1, "--merge", whole, word="two folders")
    refused(1, "--merge", whole, whole, word="same data")
    refused(1, "--merge", whole, scores, word="scores: expected")
    refused(1, "--merge", whole, tmp_path, word="scores.json")
    refused(2, MODEL, "--merge", whole, whole, word="no place")
    refused(2, "--data", HELD, "--merge", whole, whole, word="no place")
    refused(2, MODEL, word="--data")
    refused(2, "--data", HELD, word="MODEL")
