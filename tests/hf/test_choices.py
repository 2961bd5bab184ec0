# SPDX-License-Identifier: Apache-2.0
"""`fettle eval --choices` against lm-evaluation-harness's own figures, which
choices/make_goldens.py wrote."""

import json
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent / "choices"
MODEL = HERE.parents[2] / "demo" / "model"
GOLDENS = json.loads((HERE / "goldens.json").read_text())["tasks"]
NAMES = [name for name in GOLDENS if "shots" not in name]


def measured(fettle, tmp_path, names, *options):
    rows = tmp_path / "rows.jsonl"
    command = [fettle, "eval", MODEL, "--rows", rows, "--quiet", "--json", "-"]
    command += ["--choices", *(HERE / f"{name}.jsonl" for name in names), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    return json.loads(done.stdout)["choices"], lines


def check(golden, found, rows):
    assert [row["row"] for row in rows] == list(range(len(rows)))
    for row, expected in zip(rows, golden["log_likelihoods"], strict=True):
        # Sums of float32 losses, some over 60 tokens.
        assert row["log_likelihoods"] == pytest.approx(expected, rel=1e-4)
    for metric in ("acc", "acc_norm", "acc_bytes"):
        assert found[metric] == pytest.approx(golden[metric])
        assert found[f"{metric}_stderr"] == pytest.approx(golden[f"{metric}_stderr"])


@pytest.mark.parametrize("options", [[], ["--tokens-per-sweep", "300"]])
def test_all_forms_give_lm_evals_figures(options, fettle, tmp_path):
    result, rows = measured(fettle, tmp_path, NAMES, *options)
    for name, found in zip(NAMES, result["files"], strict=True):
        own = [row for row in rows if row["file"] == found["file"]]
        assert found["questions"] == len(own)
        check(GOLDENS[name], found, own)
    questions = sum(found["questions"] for found in result["files"])
    right = sum(found["questions"] * found["acc"] for found in result["files"])
    assert result["all"]["questions"] == questions
    assert result["all"]["acc"] == pytest.approx(right / questions)


def test_shots_come_before_each_question(fettle, tmp_path):
    result, rows = measured(
        fettle, tmp_path, ["mmlu"],
        "--shots", "2", "--shots-from", HERE / "mmlu_dev.jsonl",
    )
    check(GOLDENS["mmlu, 2 shots"], result["files"][0], rows)


def test_text_and_choices_in_one_run(fettle, tmp_path):
    command = [fettle, "eval", MODEL, "--choices", HERE / "piqa.jsonl", "--quiet"]
    command += ["--data", MODEL.parent / "data" / "held_math.jsonl"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "25.00 % ± 25.00" in text
    assert "held_math.jsonl" in text


@pytest.mark.parametrize(
    "rows,options,status,message",
    [
        ('{"context": "a"}\n', [], 1, "expected the keys context, choices and answer"),
        ("\n", [], 1, "holds no question"),
        ('{"context": "", "choices": ["a", "b"], "answer": 2}', [], 1, "test set"),
        (
            '{"context": "a", "choices": ["b", "c"], "answer": 0}',
            ["--shots", "3", "--shots-from", HERE / "mmlu_dev.jsonl"],
            1,
            "--shots asks for 3",
        ),
        (
            '{"context": "a", "choices": ["b", "of many tokens"], "answer": 0}',
            ["--seq-len", "1"],
            1,
            "the model reads 1 at most",
        ),
        ("", ["--shots", "1"], 2, "needs --shots-from"),
        ("", ["--shots-from", "x"], 2, "no effect without --shots"),
        ("", ["--rows", "no/such/folder/x"], 1, "no/such/folder"),
    ],
)
def test_refusals(rows, options, status, message, fettle, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text(rows)
    command = [fettle, "eval", MODEL, "--choices", file, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options,message",
    [
        ([], "needs --data"),
        (["--data", HERE / "arc.jsonl", "--rows", "x"], "no effect without"),
    ],
)
def test_eval_needs_something_to_measure(options, message, fettle):
    done = subprocess.run(
        [fettle, "eval", MODEL, *options], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
