# SPDX-License-Identifier: Apache-2.0
"""Recipes: what is refused before the first stage, what is done anew and what
is skipped when something has changed, and what the table says."""

import json
import shlex

import pytest
from conftest import HELD, MODEL, TRAIN

DATA = f"data: {{calibration: [{TRAIN}], train: [{TRAIN}], eval: [{HELD}]}}"


def lines(count):
    return "".join(TRAIN.read_text().splitlines(keepends=True)[:count])


@pytest.fixture
def recipe(fettle, tmp_path):
    """Writes a recipe and runs it; the answer's JSON, or what was refused."""
    def run(stages, *options, head=DATA, model=MODEL, out="work"):
        file = tmp_path / "recipe.yaml"
        listed = "".join(f"  - {stage}\n" for stage in stages)
        file.write_text(f"model: {model}\nout: {tmp_path / out}\n{head}\n"
                        f"stages:\n{listed}")
        done = fettle("run", file, "--quiet", "--json", "-", *options)
        if done.status == 0:
            return json.loads(done.out)["stages"]
        assert done.status in (1, 2) and done.err.count("\n") == 1, done.err
        return done.err

    return run


ANALYZE = "analyze: {scores: [wanda], tokens: 256, seq_len: 64}"
TRIM = "trim: {keep: 0.5}"
TUNE = "tune: {steps: 1, tokens_per_step: 64, seq_len: 64}"


@pytest.mark.parametrize("stages, words", [
    ((ANALYZE, "trim: {keep: 1.5}"), ("trim", "(0, 1]", "1.5")),
    ((ANALYZE, "trim: {keep: 50}"), ("trim", "(0, 1]", "50")),
    ((ANALYZE, "trim: {keep: 0.5, score: reap}"), ("reap", "wanda")),
    (("analyze: {scores: [wanda, reap]}", TRIM), ("score", "--score")),
    (("analyze: {scores: [obs, foo]}",), ("foo",)),
    ((ANALYZE, "trim: {keep: 0.5, unit: expert, widths: uniform}"),
     ("widths",)),
    ((ANALYZE, "trim: {keep: 0.5, scope: globl}"), ("did you mean global?",)),
    ((ANALYZE, "trim: {kep: 0.5}"), ("did you mean --keep?",)),
    ((ANALYZE, "trim: {keep: 0.5, budget: 1GiB}"), ("does not go with",)),
    ((ANALYZE, "trim: {budget: lots}"), ("lots",)),
    (("tune: {method: usafe}",), ("usafe",)),
    (("tune: {method: lora, frac: 0.1, seq_len: 64}",), ("frac", "lora")),
    (("tune: {lr: -1, seq_len: 64}",), ("lr", "-1")),
    (("tune: {tokens_per_step: 32, seq_len: 64}",), ("tokens_per_step",)),
    (("tune: {teacher: /nosuch, seq_len: 64}",), ("/nosuch",)),
    (("tune: {method: router_kd, seq_len: 64}",), ("--teacher",)),
    (("tune: {method: lora, peft: /, seq_len: 64}",), ("exists already",)),
    (("quant: {bits: int5}",), ("int5",)),
    (("quant: {plan: /nosuch}",), ("/nosuch",)),
    (("export: {format: hfpadded}",), ("hfpadded",)),
    (("export: {dtype: bf16}",), ("one of keep", "bf16")),
    (("export: {format: compressed-tensors}",), ("quant stage",)),
    (("eval: {seq_len: 0}",), ("above 0",)),
    (("eval: {against: /nosuch}",), ("/nosuch",)),
    ((TRIM,), ("analyze stage before it",)),
])
def test_every_value_is_judged_before_the_first_stage(
        recipe, tmp_path, stages, words):
    for options in (("--dry-run",), ()):
        refused = recipe(stages, *options)
        assert isinstance(refused, str), refused
        for word in words:
            assert word in refused
        assert not (tmp_path / "work").exists()


def test_the_work_folder_is_judged_too(recipe, tmp_path):
    assert "too long" in recipe([ANALYZE], "--dry-run", out="o" * 100000)
    (tmp_path / "file").write_text("x")
    assert "exists already" in recipe([ANALYZE], "--dry-run", out="file")
    assert "not a folder" in recipe([ANALYZE], "--dry-run", out="file/work")
    (tmp_path / "work" / "01-analyze").mkdir(parents=True)
    assert "none of this recipe's" in recipe([ANALYZE], "--dry-run")


def test_dry_run_writes_nothing_and_shows_commands(
        fettle, recipe, tmp_path, monkeypatch):
    stages = (ANALYZE, TRIM, TUNE, "export: {format: hf-padded}")
    steps = recipe(stages, "--dry-run")
    assert [s["would"] for s in steps] == ["runs"] * 5
    shown = fettle("run", tmp_path / "recipe.yaml", "--dry-run")
    assert shown.status == 0 and not (tmp_path / "work").exists()
    assert max(map(len, shown.out.splitlines())) <= 100
    text = shown.out.replace("\\\n", " ")
    found = [shlex.split(line) for line in text.splitlines()
             if line.startswith("    fettle")]
    assert found == [s["command"] for s in steps]
    # A path with a space is one word again.
    steps = recipe((ANALYZE,), "--dry-run", out="two words")
    assert str(tmp_path / "two words" / "01-analyze") in steps[0]["command"]


def test_a_stage_s_own_data_stands_in_place_of_the_recipe_s(recipe, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(lines(40))
    for stage in ("analyze: {", "trim: {keep: 0.5, ", "tune: {seq_len: 64, ",
                  "quant: {", "eval: {"):
        stages = [f"{stage}data: {own}}}"]
        if stage.startswith("trim"):
            stages.insert(0, "analyze: {}")
        step = recipe(stages, "--dry-run")[len(stages) - 1]
        command = step["command"]
        assert f"--data={own}" in command and "--data" not in command
    own_eval = recipe([f"tune: {{seq_len: 64, eval_data: {own}}}"],
                      "--dry-run")[0]["command"]
    assert f"--eval-data={own}" in own_eval and "--eval-data" not in own_eval


def test_data_of_other_columns_is_read_in_every_stage(
        fettle, recipe, tmp_path):
    pairs = (("2 + 3 =", "5"), ("7 + 1 =", "8"), ("9 + 9 =", "18"))
    data = tmp_path / "qa.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n"
                            for q, a in pairs))
    columns = "prompt=question,completion=answer"
    tune = "tune: {steps: 1, tokens_per_step: 64, seq_len: 64, method: lora"
    head = f"data: {{train: {data}, eval: {data}, columns: '{columns}'}}"
    rows = recipe([tune + "}", "eval"], head=head)
    losses = nll(rows)
    direct = fettle("eval", MODEL, "--data", data, "--columns", columns,
                    "--quiet", "--json", "-")
    assert losses["00-original"] == json.loads(direct.out)["mean_nll"]
    assert rows[-1]["mean_nll"] == losses["02-merge"]
    # A stage's own way stands in place of the recipe's.
    own = recipe([tune + ", columns: text=question}"], "--dry-run",
                 head=head)[0]["command"]
    assert "--columns=text=question" in own
    assert f"--columns={columns}" not in own
    # Read in another way, the losses are others.
    other = head.replace("completion=answer", "completion=question")
    recipe(["eval"], head=head, out="other")
    for way, would in ((head, "is whole: skipped"), (other, "runs")):
        again = recipe(["eval"], "--dry-run", head=way, out="other")
        assert [row["would"] for row in again] == [would]


@pytest.fixture(scope="module")
def work(fettle, tmp_path_factory):
    """A recipe that reads files of every kind, run once."""
    folder = tmp_path_factory.mktemp("recipe")
    for name, count in (("cal", 30), ("train", 40), ("held", 3)):
        (folder / f"{name}.jsonl").write_text(lines(count))
    for name in ("model", "teacher"):
        (folder / name).mkdir()
        for file in MODEL.iterdir():
            (folder / name / file.name).write_bytes(file.read_bytes())
    scores = folder / "scores"
    calibrate = ("--data", folder / "cal.jsonl", "--tokens", 256, "--seq-len",
                 64, "--scores", "wanda", "--quiet")
    assert fettle("analyze", folder / "model", *calibrate, "--out",
                  scores).status == 0
    for name, keep in (("plan", 0.5), ("other", 0.4)):
        assert fettle("trim", folder / "model", "--scores", scores, "--keep",
                      keep, "--plan-only", "--out", folder / name).status == 0
    (folder / "recipe.yaml").write_text(f"""
model: {folder}/model
out: {folder}/work
data: {{train: {folder}/train.jsonl, eval: {folder}/held.jsonl}}
seq_len: 64
stages:
  - analyze: {{scores: wanda, tokens: 256, seq_len: 64,
              data: {folder}/cal.jsonl}}
  - trim: {{plan: {folder}/plan/trim_plan.json, repair: none}}
  - tune: {{steps: 1, tokens_per_step: 64, seq_len: 64, score_sequences: 1,
           eval_every: 0, teacher: {folder}/teacher}}
  - eval: {{against: original}}
""")
    return folder


@pytest.fixture(scope="module")
def run(fettle, work):
    def once(*options):
        done = fettle("run", work / "recipe.yaml", "--quiet", "--json", "-",
                      *options)
        assert done.status == 0, done.err
        return json.loads(done.out)["stages"]

    once()
    return once


def nll(rows):
    return {r["stage"]: r["eval"]["mean_nll"] for r in rows if "eval" in r}


def test_what_is_whole_is_skipped(fettle, run, work):
    rows = run()
    assert [r["stage"] for r in rows] == [
        "00-original", "01-analyze", "02-trim", "03-tune", "04-merge",
        "04-merge eval"]
    assert [r["skipped"] for r in rows] == [False] + [True] * 5
    # The eval stage measures the model that the steps before it have made.
    assert rows[-1]["mean_nll"] == rows[-2]["eval"]["mean_nll"]
    assert rows[-1]["files"][0]["kl"] > 0
    text = fettle("run", work / "recipe.yaml", "--quiet").out
    assert "perplexity" in text and f"{rows[-1]['mean_nll']:.4f}" in text
    assert f"report: {work}/work/02-trim/report.html" in text
    assert f"next: fettle generate {work}/work/04-merge" in text


def edited(path, change):
    before = path.read_bytes()
    path.write_bytes(change(before))
    return lambda: path.write_bytes(before)


@pytest.mark.parametrize("file, change, first", [
    ("cal.jsonl", lambda b: b[:len(b) - len(b.splitlines()[-1]) - 1], 0),
    ("plan/trim_plan.json", lambda b: b + b" ", 1),
    ("train.jsonl", lambda b: b + b.splitlines()[0] + b"\n", 2),
    ("teacher/config.json", lambda b: b + b" ", 2),
    ("model/config.json", lambda b: b + b" ", 0),
    ("model/tokenizer.json", lambda b: b + b" ", 0),
    ("model/chat_template.jinja", lambda b: b + b" ", 0),
    ("model/README.md", lambda b: b + b" ", None),
])
def test_a_step_is_redone_when_what_it_reads_has_changed(
        run, work, file, change, first):
    path = work / file
    if not path.exists():
        path.write_bytes(b"text")
        run()
    undo = edited(path, change)
    would = [s["would"] for s in run("--dry-run")]
    undo()
    steps = ["01-analyze", "02-trim", "03-tune", "04-merge", "eval"]
    expected = ["runs" if first is not None and i >= first
                else "is whole: skipped" for i in range(len(steps))]
    assert would == expected


def test_the_seed_of_the_command_line_counts(run):
    assert {s["would"] for s in run("--dry-run", "--seed", 7)} == {"runs"}
    assert {s["would"] for s in run("--dry-run", "--seed", 1)} == {
        "is whole: skipped"}


def test_the_table_never_mixes_losses(fettle, run, work):
    before = nll(run())
    assert len(before) == 3
    held = work / "held.jsonl"
    undo = edited(held, lambda b: b"".join(TRAIN.read_bytes().splitlines(
        keepends=True)[5:9]))
    recipe = work / "recipe.yaml"
    # Held-out data chooses tune's adapter: it is tuned anew, all are measured.
    would = [s["would"] for s in run("--dry-run")]
    assert would[1] == "is whole: measured anew" and would[2] == "runs"
    after = nll(run())
    undo()
    assert after.keys() == before.keys()
    for stage, folder in (("00-original", work / "model"),
                          ("02-trim", work / "work" / "02-trim")):
        assert abs(after[stage] - before[stage]) > 1e-3
    undo_recipe = edited(recipe, lambda b: b.replace(
        b"seq_len: 64\nstages", b"seq_len: 16\nstages"))
    short = run()
    for row in short[:3]:
        assert row["stage"] != "02-trim" or row["skipped"]
    direct = fettle("eval", work / "work" / "02-trim", "--data", held,
                    "--seq-len", 16, "--quiet", "--json", "-")
    assert (nll(short)["02-trim"]
            == json.loads(direct.out)["mean_nll"])
    undo_recipe()
    assert nll(run()) == before


def test_a_run_killed_behind_a_stage_measures_its_model(run, work):
    before = nll(run())
    file = work / "work" / "run.json"
    record = json.loads(file.read_text())
    for lost in ({"loss"}, {"loss", "result"}):
        cut = json.loads(json.dumps(record))
        for key in lost:
            del cut["02-trim"][key]
        file.write_text(json.dumps(cut))
        rows = run()
        assert nll(rows) == before
        assert rows[2]["skipped"] and rows[2]["bytes"] > 0
