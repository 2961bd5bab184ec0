# SPDX-License-Identifier: Apache-2.0
"""The chain as a person runs it, killed and resumed at any moment."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest
import safetensors.numpy
from conftest import HELD, MODEL, ROOT, TRAIN


def evaluated(fettle, model, *more):
    result = fettle("eval", model, "--data", HELD, "--seq-len", 256, "--quiet",
                    "--json", "-", *more)
    assert result.status == 0, result.err
    return json.loads(result.out)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(pathlib.Path(folder).rglob("*")) if p.is_file()}


def test_loss_is_the_one_that_transformers_found(fettle):
    known = json.loads((ROOT / "demo" / "held_nll.json").read_text())
    result = evaluated(fettle, MODEL)
    nll = known["files"]["math"]["nll"]
    assert abs(result["files"][0]["nll"] - nll) < 2e-4
    assert result["peak_ram_bytes"] > 0 and result["tokens_per_second"] > 0


def test_model_is_its_own_best_student(fettle):
    result = evaluated(fettle, MODEL, "--against", MODEL)["files"][0]
    assert result["kl"] == 0 and result["top1"] == 1


def test_same_bits_from_run_to_run(fettle, scores, tmp_path):
    again = tmp_path / "again"
    done = fettle("analyze", MODEL, "--data", HELD, "--tokens", 2048,
                  "--seq-len", 128, "--out", again, "--quiet")
    assert done.status == 0, done.err
    name = "scores.safetensors"
    assert (again / name).read_bytes() == (scores / name).read_bytes()


def test_result_under_a_tight_budget_is_the_same(fettle):
    """A small budget makes small micro-batches, streams layers and spills."""
    free = evaluated(fettle, MODEL)
    tight = evaluated(fettle, MODEL, "--ram", "256MiB")
    assert abs(free["files"][0]["nll"] - tight["files"][0]["nll"]) < 1e-6
    assert tight["peak_ram_bytes"] < 256 << 20


@pytest.mark.parametrize("arguments", [
    ("--scope", "global"), ("--scope", "layer"), ("--scope", "expert"),
    ("--unit", "expert", "--score", "obs", "--scope", "layer"),
    ("--unit", "mixed"), ("--widths", "per-layer"), ("--widths", "uniform"),
    ("--repair", "constant"),
    ("--repair", "ridge", "--data", HELD, "--tokens", 2048),
    ("--repair", "ridge+constant", "--data", HELD, "--tokens", 2048,
     "--repair-inputs", "trimmed"),
    ("--unit", "mixed", "--widths", "uniform", "--repair", "joint", "--data",
     HELD, "--tokens", 2048),
    *(("--unit", "expert", "--scope", "layer", "--merge", method, "--data",
       HELD, "--tokens", 2048) for method in ("m_smoe", "hc_smoe")),
])
def test_trim_and_evaluate(fettle, scores, tmp_path, arguments):
    out = tmp_path / "trimmed"
    done = fettle("trim", MODEL, "--scores", scores, "--keep", 0.75, *arguments,
                  "--out", out, "--quiet", "--json", "-")
    assert done.status == 0, done.err
    sizes = json.loads(done.out)
    share = sizes["after"]["neurons"] / sizes["before"]["neurons"]
    assert abs(share - 0.75) < 0.03
    assert evaluated(fettle, out)["files"][0]["nll"] < 3


def test_plan_can_be_made_before_the_trim(fettle, scores, tmp_path):
    keep = ("trim", MODEL, "--scores", scores, "--keep", 0.5, "--quiet")
    planned = fettle(*keep, "--plan-only", "--out", tmp_path / "plan")
    assert planned.status == 0, planned.err
    assert "width, min..median..max" in planned.out
    assert os.listdir(tmp_path / "plan") == ["trim_plan.json"]
    page = tmp_path / "plan.html"
    told = fettle(*keep, "--plan-only", "--report", page, "--out",
                  tmp_path / "again")
    assert told.status == 0 and "<canvas" in page.read_text()
    alone = fettle(*keep, "--report", page, "--out", tmp_path / "none")
    assert alone.status == 2 and "--plan-only" in alone.err
    file = tmp_path / "plan" / "trim_plan.json"
    later = ("trim", MODEL, "--plan", file, "--quiet")
    assert fettle(*later, "--out", tmp_path / "later").status == 0
    assert fettle(*keep, "--out", tmp_path / "once").status == 0
    later_files, once_files = (files_of(tmp_path / n) for n in ("later", "once"))
    for files in (later_files, once_files):
        assert b"fettle trim" in files.pop("report.html")  # the command differs
    assert later_files == once_files
    both = fettle(*keep, "--plan", file, "--out", tmp_path / "both")
    assert both.status == 2 and "--plan" in both.err
    neither = fettle("trim", MODEL, "--keep", 0.5, "--out", tmp_path / "both")
    assert neither.status == 2 and "--scores" in neither.err
    # Another model's plan is none of this one's.
    other = fettle("trim", tmp_path / "once", "--plan", file, "--out",
                   tmp_path / "both", "--quiet")
    assert other.status == 1 and "another model" in other.err
    assert not (tmp_path / "both").exists()


def test_repair_keeps_to_its_budget_and_loses_less(fettle, scores, tmp_path):
    trim = ("trim", MODEL, "--scores", scores, "--keep", 0.25, "--quiet")
    ridge = (*trim, "--repair", "ridge", "--data", TRAIN, "--tokens", 8192,
             "--seq-len", 128, "--json", "-")
    cut, tight = tmp_path / "cut", tmp_path / "tight"
    assert fettle(*trim, "--out", cut).status == 0
    done = fettle(*ridge, "--ram", "256MiB", "--out", tight)
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["peak_ram_bytes"] < 256 << 20
    assert result["repair"]["tokens"] >= 8192
    loss = evaluated(fettle, tight)["files"][0]["nll"]
    assert loss < evaluated(fettle, cut)["files"][0]["nll"] - 0.01
    # More room changes micro-batches, and so the order of fp32 sums, only.
    free = tmp_path / "free"
    assert fettle(*ridge, "--out", free).status == 0
    assert abs(loss - evaluated(fettle, free)["files"][0]["nll"]) < 1e-3


def test_generate_is_greedy_and_repeatable(fettle):
    def once(*more):
        done = fettle("generate", MODEL, "--prompt", "Tom has 3", "--quiet",
                      "--max-new-tokens", 12, "--json", "-", *more)
        assert done.status == 0, done.err
        return json.loads(done.out)["ids"]

    assert once() == once()
    warm = ("--temperature", 1.0, "--top-p", 0.9)
    assert once(*warm, "--seed", 3) == once(*warm, "--seed", 3)


def test_generate_counts_its_cache(fettle, model):
    """Keys and values of all tokens to come are planned for at the start."""
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] = 1 << 20
    (model / "config.json").write_text(json.dumps(config))
    command = ("generate", model, "--prompt", "Tom", "--ram", "400MiB")
    assert fettle(*command, "--max-new-tokens", 2).status == 0
    refused = fettle(*command, "--max-new-tokens", 1 << 19)
    assert refused.status == 1 and not refused.out
    least = int(re.search(r"smallest that works is (\d+)MiB", refused.err)[1])
    # 4 layers of 2 heads of 32 keys and 32 values, of 2 or 4 bytes.
    cache = (1 << 19) * 4 * 2 * (32 + 32) * 2 >> 20
    assert least > cache


def test_generate_ends_where_generation_config_says(fettle, tmp_path):
    def ids(folder):
        done = fettle("generate", folder, "--prompt", "Tom has 3", "--quiet",
                      "--max-new-tokens", 12, "--json", "-")
        assert done.status == 0, done.err
        return json.loads(done.out)["ids"]

    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    whole = ids(folder)
    assert len(whole) == 12
    # Two ends; the one that comes first counts.
    ends = [whole[7], whole[4]]
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": ends}))
    cut = next(i for i, token in enumerate(whole) if token in ends) + 1
    assert ids(folder) == whole[:cut]


SHORT = ("--steps", 6, "--tokens-per-step", 512, "--seq-len", 128,
         "--warmup-steps", 1, "--save-every", 1, "--quiet")
TUNE = (*SHORT, "--score-sequences", 8, "--router-warmup", 2)


METHODS = {
    "usaf": TUNE,
    "lora": (*SHORT, "--method", "lora", "--rank", 4),
    "full": (*SHORT, "--method", "full"),
    "element": (*SHORT, "--method", "usaf", "--unit", "element", "--scope",
                "layer", "--score-sequences", 8, "--router", "frozen"),
}


@pytest.fixture(scope="module")
def unbroken(fettle, tmp_path_factory):
    """A whole run of a method, made once."""
    made = {}

    def run(method):
        if method not in made:
            out = tmp_path_factory.mktemp("tune") / "tuned"
            done = fettle("tune", MODEL, "--data", TRAIN, "--out", out,
                          *METHODS[method])
            assert done.status == 0, done.err
            made[method] = out
        return made[method]

    return run


@pytest.mark.parametrize("method, stop", [
    *((method, signal.SIGKILL) for method in METHODS),
    ("usaf", signal.SIGINT)])
def test_tune_stopped_and_resumed(
        program, fettle, unbroken, tmp_path, method, stop):
    whole = unbroken(method)
    out = tmp_path / "tuned"
    arguments = ["tune", MODEL, "--data", TRAIN, "--out", out,
                 *METHODS[method]]
    process = subprocess.Popen(
        [program, *map(str, arguments)], stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL)
    metrics = tmp_path / "tuned.partial" / "metrics.jsonl"
    for _ in range(3000):
        if process.poll() is not None:
            break
        if metrics.exists() and metrics.read_text().count("\n") >= 3:
            process.send_signal(stop)
            break
        time.sleep(0.01)
    process.wait()
    assert not out.exists(), "the run ended before it could be stopped"
    done = fettle(*arguments, "--resume")
    assert done.status == 0, done.err
    found, meant = files_of(out), files_of(whole)
    assert found.keys() == meant.keys()
    tensors = [name for name in meant if name.endswith(".safetensors")]
    assert tensors == (["adapter.safetensors", "weights.safetensors"]
                       if method == "full" else ["adapter.safetensors"])
    for name in tensors:
        assert found[name] == meant[name]


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("stage", ["analyze", "trim", "repair", "export"])
def test_killed_stage_leaves_nothing_whole(
        program, fettle, scores, tmp_path, stage, delay):
    arguments = {
        "analyze": ["--data", HELD, "--tokens", 4096, "--seq-len", 128],
        "trim": ["--scores", scores, "--keep", 0.5],
        "repair": ["--scores", scores, "--keep", 0.5, "--repair", "ridge",
                   "--data", TRAIN, "--tokens", 2048, "--seq-len", 128],
        "export": ["--format", "hf"],
    }[stage]
    stage = "trim" if stage == "repair" else stage
    out = tmp_path / "out"
    command = [stage, MODEL, *arguments, "--out", out, "--quiet"]
    process = subprocess.Popen([program, *map(str, command)],
                               stdout=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    if not out.exists():  # else it was quicker than the signal
        done = fettle(*command)
        assert done.status == 0, done.err
    again = tmp_path / "again"
    done = fettle(*command[:-2], again, "--quiet")
    assert done.status == 0, done.err
    for name, content in files_of(again).items():
        if name.endswith(".safetensors"):
            assert files_of(out)[name] == content


def test_two_runs_on_one_folder(program, fettle, tmp_path):
    out = tmp_path / "tuned"
    command = ["tune", MODEL, "--data", TRAIN, "--out", out, *TUNE]
    first = subprocess.Popen([program, *map(str, command)],
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    while not list((tmp_path / "tuned.partial").glob("*")):
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # so that it can't be done too early
    second = fettle(*command)
    first.send_signal(signal.SIGCONT)
    assert second.status == 1 and "another run" in second.err
    assert first.wait() == 0


def test_recipe_skips_what_is_whole(fettle, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    text = f"""
model: {MODEL}
out: {tmp_path / 'work'}
data: {{calibration: [{HELD}], train: [{TRAIN}], eval: [{HELD}]}}
seq_len: 128
stages:
  - analyze: {{scores: [wanda], tokens: 1024, seq_len: 128}}
  - trim: {{keep: 0.5, round: 8, tokens: 512}}
  - tune: {{steps: 2, tokens_per_step: 256, seq_len: 64, score_sequences: 2}}
  - quant: {{bits: int4, tokens: 1024, seq_len: 128}}
  - export: {{format: hf-padded, dtype: float32}}
"""
    recipe.write_text(text)
    plan = fettle("run", recipe, "--dry-run", "--quiet")
    assert plan.status == 0 and not (tmp_path / "work" / "01-analyze").exists()
    first = fettle("run", recipe, "--quiet", "--json", "-")
    assert first.status == 0, first.err
    rows = json.loads(first.out)["stages"]
    assert [r["stage"] for r in rows] == [
        "00-original", "01-analyze", "02-trim", "03-tune", "04-merge",
        "05-quant", "06-export"]
    assert not any(r["skipped"] for r in rows)
    # By default the calibration data repairs.
    record = tmp_path / "work" / "02-trim" / "fettle.json"
    assert '"repair": "ridge"' in record.read_text()
    # What an export holds is the model that was quantized.
    by_name = {r["stage"]: r for r in rows}
    assert (by_name["06-export"]["eval"]["mean_nll"]
            == pytest.approx(by_name["05-quant"]["eval"]["mean_nll"], abs=1e-6))
    # Every model ends where the first did.
    for stage in ("02-trim", "04-merge", "05-quant", "06-export"):
        ends = tmp_path / "work" / stage / "generation_config.json"
        assert (ends.read_bytes()
                == (MODEL / "generation_config.json").read_bytes())
    before = os.stat(tmp_path / "work" / "02-trim").st_mtime_ns
    again = json.loads(fettle("run", recipe, "--quiet", "--json", "-").out)
    assert all(r["skipped"] for r in again["stages"][1:])
    recipe.write_text(text.replace("round: 8", "round: 16"))
    third = json.loads(fettle("run", recipe, "--quiet", "--json", "-").out)
    assert [r["skipped"] for r in third["stages"][1:]] == [True] + [False] * 5
    assert os.stat(tmp_path / "work" / "02-trim").st_mtime_ns != before


@pytest.mark.parametrize("text, word", [
    ("model: [", "valid"),
    ("model: m\nout: o\n", "stages"),
    ("model: m\nout: o\nstages: [{bake: {}}]\n", "bake"),
    ("model: m\nout: o\noven: 3\nstages: [export]\n", "oven"),
    (f"model: {MODEL}\nout: OUT\nstages: [{{trim: {{keep: 0.5}}}}]\n",
     "analyze"),
    (f"model: {MODEL}\nout: OUT\nstages: [{{export: {{flavour: x}}}}]\n",
     "flavour"),
])
def test_bad_recipe(fettle, tmp_path, text, word):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.replace("OUT", str(tmp_path / "work")))
    done = fettle("run", recipe, "--quiet")
    assert done.status == 1 and word in done.err, done.err
    assert done.err.count("\n") == 1


def test_tune_ends_early_with_its_best(fettle, tmp_path):
    # The rate rises, from one that is too high already.
    tune = ("tune", MODEL, "--data", TRAIN, "--steps", 6, "--seq-len", 256,
            "--tokens-per-step", 256, "--score-sequences", 4, "--lr", 0.05,
            "--warmup-steps", 6, "--router", "frozen", "--quiet")
    judged = ("--eval-data", HELD, "--eval-every", 1, "--patience", 2)
    out = tmp_path / "tuned"
    done = fettle(*tune, *judged, "--out", out, "--json", "-")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["stopped_early"] and not result["stopped"]
    assert result["steps"] == result["best_step"] + 2 < 6
    lines = [json.loads(line)
             for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["eval"][str(HELD)]["nll"] for line in lines[1:]]
    assert losses.index(min(losses)) + 1 == result["best_step"]
    assert result["held_out_after"][str(HELD)]["nll"] == min(losses)
    page = (out / "report.html").read_text()
    assert page.count("<canvas") == 8 and 'src="' not in page
    # What merges is the best step's model.
    merged = tmp_path / "merged"
    done = fettle("merge", MODEL, "--adapter", out, "--out", merged, "--dtype",
                  "float32", "--quiet")
    assert done.status == 0, done.err
    found = evaluated(fettle, merged)["files"][0]["nll"]
    assert abs(found - min(losses)) < 1e-4
    for wrong in (("--patience", 2), ("--keep-best", "yes")):
        done = fettle(*tune, *wrong, "--out", tmp_path / "none")
        assert done.status == 1 and "--eval-data" in done.err
        assert not (tmp_path / "none.partial").exists()


@pytest.mark.parametrize("states", ["disk", "ram"])
def test_full_keeps_to_its_budget(fettle, tmp_path, states):
    tune = ("tune", MODEL, "--data", TRAIN, "--steps", 2, "--seq-len", 128,
            "--tokens-per-step", 512, "--method", "full", "--states", states,
            "--quiet")
    little = fettle(*tune, "--ram", "200MiB", "--out", tmp_path / "none")
    assert little.status == 1 and "--ram" in little.err
    least = re.search(r"smallest that works is (\d+)MiB", little.err)[1]
    done = fettle(*tune, "--ram", f"{least}MiB", "--out", tmp_path / "tuned",
                  "--json", "-")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["peak_ram_bytes"] < int(least) << 20
    rows = {row["what"]: row for row in result["plan"]["rows"]}
    assert sum(row["ram_bytes"] for row in rows.values()) < int(least) << 20
    held = rows["gradients, masters, moments"]["ram_bytes"]
    weights = result["trainable_weights"]
    assert (held > 12 * weights) == (states == "ram")
    assert rows["saved states"]["disk_bytes"] == 24 * weights


@pytest.mark.parametrize("share", [0.005, 0.05])
def test_single_weights_are_kept_small(fettle, tmp_path, share):
    out = tmp_path / "tuned"
    done = fettle("tune", MODEL, "--data", TRAIN, "--out", out, "--method",
                  "usaf", "--unit", "element", "--scope", "layer", "--frac",
                  share, "--router", "frozen", "--steps", 1, "--seq-len", 128,
                  "--tokens-per-step", 256, "--score-sequences", 8, "--quiet")
    assert done.status == 0, done.err
    tensors = safetensors.numpy.load_file(out / "adapter.safetensors")
    values = {k: v for k, v in tensors.items() if k.endswith(".values")}
    numbers = {k: v for k, v in tensors.items() if k.endswith(".index")}
    assert len(values) == len(numbers) == len(tensors) / 2 > 100
    weights = sum(v.size for v in values.values())
    # A byte each at most, and 16 a matrix.
    held = sum(v.nbytes for v in numbers.values()) - 16 * len(numbers)
    assert held < weights
    for key, value in values.items():
        count = numbers[key.replace(".values", ".index")][:8].view("<u8")[0]
        assert value.shape == (count, 1, 1) and value.dtype.name == "float32"


def test_tune_tells_its_plan(fettle, tmp_path):
    tune = ("tune", MODEL, "--data", TRAIN, "--steps", 1, "--seq-len", 128,
            "--tokens-per-step", 512, "--json", "-")
    free = fettle(*tune, "--score-sequences", 4, "--out", tmp_path / "free")
    assert free.status == 0, free.err
    plan = json.loads(free.out)["plan"]
    assert plan["io_seconds_per_step"] == 0
    assert "no step waits for the disk" in free.err
    for row in plan["rows"]:
        held = row["ram_bytes"] + row["device_bytes"] + row["disk_bytes"]
        assert (row["what"] in free.err) == (held > 0)
    stored = fettle(*tune, "--method", "full", "--out", tmp_path / "full")
    assert stored.status == 0, stored.err
    plan = json.loads(stored.out)["plan"]
    # Weights of layers are read on either way, others once, and the masters
    # and moments of all.
    read, written = (plan[f"{what}_bytes_per_step"]
                     for what in ("read", "written"))
    assert written * 16 < read * 12 < written * 20
    assert plan["disk_bytes_per_second"] > 0
    assert plan["io_seconds_per_step"] > 0
    assert "measured" in stored.err
    line = (tmp_path / "full" / "metrics.jsonl").read_text().splitlines()[-1]
    line = json.loads(line)
    assert line["seconds"]["wait"] >= 0
    # Two threads at most read and write states, beside forward and backward.
    states = line["io_seconds"]["states"]
    sweeps = line["seconds"]["forward"] + line["seconds"]["backward"]
    assert 0 < states < 2 * sweeps
