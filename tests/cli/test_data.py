# SPDX-License-Identifier: Apache-2.0
"""Data as people have it: how it is packed, named and formed, and what a command
says of it before it works."""

import gzip
import json

import pytest
from conftest import HELD, MODEL

TEXTS = ["2 + 3 = 5", "Vera buys 5 stamps.", "def put(self, n):"]
PAIRS = [("2 + 3 =", " 5"), ("Vera buys", " 5 stamps."), ("def put", "(self, n):")]


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def evaluate(fettle):
    def run(*arguments):
        done = fettle("eval", MODEL, "--json", "-", "--data", *arguments)
        assert done.status == 0, done.err
        return json.loads(done.out), done.err

    return run


def test_packed_arrays_and_folders_are_read(evaluate, tmp_path):
    rows = [{"text": t} for t in TEXTS]
    folder = tmp_path / "da,ta:1"
    folder.mkdir()
    (folder / "a.jsonl").write_text(lines(rows))
    (folder / "b.json").write_text(json.dumps(rows, indent=1))
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines(rows).encode()))
    (folder / "notes.txt").write_text("not data")
    result, told = evaluate(folder)
    assert [f["file"] for f in result["files"]] == [
        str(folder / name) for name in ("a.jsonl", "b.json", "c.jsonl.gz")]
    assert len({f["nll"] for f in result["files"]}) == 1
    assert [f["samples"] for f in result["data"]["files"]] == [3, 3, 3]
    assert "c.jsonl.gz" in told and "scored" in told


def test_columns_name_a_form(evaluate, fettle, tmp_path):
    (tmp_path / "own.jsonl").write_text(
        lines({"prompt": p, "completion": c} for p, c in PAIRS))
    (tmp_path / "qa.jsonl").write_text(
        lines({"question": p, "answer": c, "text": "x"} for p, c in PAIRS))
    columns = ("--columns", "prompt=question,completion=answer")
    result, _ = evaluate(tmp_path / "own.jsonl", tmp_path / "qa.jsonl", *columns)
    assert result["files"][0]["nll"] == result["files"][1]["nll"]
    (tmp_path / "qa.jsonl").write_text(
        lines({"question": p, "answer": c} for p, c in PAIRS))
    done = fettle("eval", MODEL, "--data", tmp_path / "qa.jsonl")
    assert done.status == 1
    assert "found question, answer; add " + " ".join(columns) in done.err
    for wrong in (("--columns", "x=y"), ("--form", "x"),
                  (*columns, "--form", "alpaca")):
        done = fettle("eval", MODEL, "--data", tmp_path / "qa.jsonl", *wrong)
        assert done.status == 2, done.err


def test_prompt_and_completion_of_messages(evaluate, tmp_path):
    user = {"role": "user", "content": "2 + 3 ="}
    answer = {"role": "assistant", "content": "5"}
    (tmp_path / "one.jsonl").write_text(lines([{"messages": [user, answer]}]))
    (tmp_path / "two.jsonl").write_text(
        lines([{"prompt": [user], "completion": [answer]}]))
    result, _ = evaluate(tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    one, two = result["files"]
    assert (one["tokens"], one["nll"]) == (two["tokens"], two["nll"])


@pytest.mark.parametrize("name, content, words", (
    ("a.parquet", b"PAR1\x15\x04", ("Parquet", "to_json")),
    ("a.csv", b"question,answer\n1,2\n", ("comma-separated", "read_csv")),
    ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", ("git lfs pull",)),
    ("a.zip", b"PK\x03\x04", ("zip", "unzip")),
    ("a.jsonl", b'{"messages": "[]"}', ("a.jsonl:1", "fromjson")),
    ("a.jsonl", b'{\n"text": "a"\n}\n', ("a.jsonl:1", "jq -c")),
))
def test_other_files_are_named(fettle, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    done = fettle("eval", MODEL, "--data", path, "--quiet")
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    for word in words:
        assert word in done.err
    if ":1" not in words[0]:
        assert "line 1" not in done.err


def test_what_is_not_scored_is_skipped_and_counted(evaluate, fettle, tmp_path):
    masked = [-100] * 40
    rows = [
        {"input_ids": [1] * 40, "labels": masked},
        {"input_ids": [1] * 40, "labels": masked[:32] + [1] * 8},
        {"text": "2 + 3 = 5"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows))
    result, told = evaluate(path, "--seq-len", 16)
    assert "1 sample with nothing to score: skipped" in told
    assert "2 windows of 16 tokens with nothing to score: skipped" in told
    file = result["data"]["files"][0]
    assert (file["samples"], file["skipped"], file["skipped_windows"]) == (2, 1, 2)
    # The first of a window's tokens isn't scored.
    assert result["files"][0]["tokens"] == file["scored"]
    path.write_text(lines(rows[:1]))
    done = fettle("eval", MODEL, "--data", path)
    assert done.status == 1
    assert "no sample has a token that counts" in done.err


def tune(fettle, data, out, *options):
    done = fettle("tune", MODEL, "--data", data, "--out", out, "--method", "router",
                  "--steps", 2, "--tokens-per-step", 128, "--seq-len", 64,
                  "--router-warmup", 0, "--json", "-", *options)
    assert done.status == 0, done.err
    return json.loads(done.out)["data"]["files"][0], done.err


def test_texts_end_and_the_run_tells_of_its_data(fettle, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines({"text": t} for t in TEXTS))
    ended, told = tune(fettle, path, tmp_path / "ended")
    left, quiet = tune(fettle, path, tmp_path / "left", "--append-eos", "no")
    assert ended["tokens"] == left["tokens"] + 3
    assert ended["trained"] == left["trained"] + 3
    assert ended["epochs"] == pytest.approx(256 / ended["tokens"])
    assert "--append-eos" in told and "--append-eos" not in quiet


def test_long_answers_are_cut_and_counted(fettle, tmp_path):
    path = tmp_path / "a.jsonl"
    # 20 and 10 tokens fit, 70 lose 6, and 100 have nothing left to train on.
    rows = [(10, 20), (0, 10), (30, 70), (90, 100)]
    path.write_text(lines(
        {"input_ids": list(range(1, end + 1)),
         "labels": [-100] * start + list(range(start + 1, end + 1))}
        for start, end in ((max(s, 1), e) for s, e in rows)))
    file, told = tune(fettle, path, tmp_path / "out")
    assert (file["samples"], file["cut"], file["lost"], file["skipped"]) == (3, 1, 6, 1)
    assert file["trained"] == 10 + 9 + 34
    assert "1 of 3 samples longer than --seq-len 64: their ends are cut off, 6 of 59" \
        in told
    assert "begins beyond --seq-len 64" in told


def test_calibration_says_when_there_is_too_little(fettle, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines({"text": t} for t in TEXTS))
    done = fettle("analyze", MODEL, "--data", path, "--tokens", 100_000, "--scores",
                  "magnitude", "--out", tmp_path / "s", "--json",
                  "-")
    assert done.status == 0, done.err
    assert "100,000 tokens are asked for, the data has" in done.err
    data = json.loads(done.out)["data"]
    assert data["tokens_used"] == data["files"][0]["tokens"]
    done = fettle("analyze", MODEL, "--data", HELD, "--tokens", 1000, "--scores",
                  "magnitude", "--out", tmp_path / "t", "--json", "-")
    assert done.status == 0, done.err
    assert "asked for" not in done.err
    assert json.loads(done.out)["data"]["tokens_used"] >= 1000
