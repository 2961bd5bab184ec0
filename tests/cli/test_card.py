# SPDX-License-Identifier: Apache-2.0
"""The chain on a card: the machine's own where FETTLE_TEST_DEVICE is cuda, else
one that the CPU emulates."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from conftest import HELD, MODEL, TRAIN

EMULATED = os.environ.get("FETTLE_TEST_DEVICE") != "cuda"
only_emulated = pytest.mark.skipif(
    not EMULATED, reason="sets the size of the card")


@pytest.fixture(scope="module")
def place(program):
    """What the environment says of where the card's plug-in is."""
    if not EMULATED:
        return {}
    plugin = program.parent / "tests/emulated_gpu/libfettle_emulated.so"
    assert plugin.exists(), f"{plugin} is missing: build it first"
    return {"FETTLE_PLUGIN_PATH": str(plugin)}


@pytest.fixture(scope="module")
def on_card(fettle, place):
    def run(*arguments, **settings):
        return fettle(*arguments, "--device", "cuda", "--quiet",
                      env={**os.environ, **place, **settings})

    return run


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Some lines of text: an emulated card is slow."""
    path = tmp_path_factory.mktemp("data") / "few.jsonl"
    path.write_text("".join(HELD.read_text().splitlines(True)[:6]))
    return path


def result(done):
    assert done.status == 0, done.err
    return json.loads(done.out)


def loss(run, model, few, *more):
    done = run("eval", model, "--data", few, "--seq-len", 64, "--json", "-",
               *more)
    return result(done)["files"][0]["nll"]


def test_eval_keeps_to_the_cards_memory(fettle, on_card, few):
    known = loss(fettle, MODEL, few, "--quiet")
    told = ("eval", MODEL, "--data", few, "--seq-len", 64, "--json", "-")
    free = result(on_card(*told))
    assert abs(free["files"][0]["nll"] - known) < 1e-2
    little = on_card(*told, "--vram", "1MiB")
    assert little.status == 1 and little.err.count("\n") == 1
    least = re.search(r"--vram.* smallest that works is (\d+)MiB", little.err)[1]
    tight = result(on_card(*told, "--vram", f"{least}MiB"))
    assert 0 < tight["peak_vram_bytes"] < int(least) << 20
    assert tight["peak_vram_bytes"] < free["peak_vram_bytes"]
    # Other micro-batches, and so other roundings of bfloat16.
    assert abs(tight["files"][0]["nll"] - known) < 1e-2
    exact = loss(on_card, MODEL, few, "--compute-dtype", "float32")
    assert abs(exact - known) < 1e-5


def test_two_models_share_a_card(on_card, few):
    both = ("eval", MODEL, "--against", MODEL, "--data", few, "--seq-len", 64,
            "--json", "-")
    little = on_card(*both, "--vram", "1MiB")
    least = re.search(r"smallest that works is (\d+)MiB", little.err)[1]
    found = result(on_card(*both, "--vram", f"{least}MiB"))
    assert found["peak_vram_bytes"] < int(least) << 20
    assert found["files"][0]["kl"] == 0 and found["files"][0]["top1"] == 1


@only_emulated
def test_a_card_without_room_is_told_of(on_card, few):
    told = ("eval", MODEL, "--data", few, "--seq-len", 64)
    # By the plan, of what others have left.
    small = on_card(*told, FETTLE_EMULATED_CARD_MIB="2")
    assert small.status == 1 and "--vram: 2.00 MiB is too little" in small.err
    # By the card, which somebody else has taken since.
    taken = on_card(*told, FETTLE_EMULATED_CARD_MIB="256",
                    FETTLE_EMULATED_CARD_TAKEN_MIB="255")
    assert taken.status == 1 and "card is out of memory" in taken.err
    assert taken.err.count("\n") == 1
    asked = on_card("fit", MODEL, "--vram", "2GiB",
                    FETTLE_EMULATED_CARD_MIB="256")
    assert asked.status == 1 and asked.out == ""
    assert "--vram: expected at most" in asked.err
    assert asked.err.count("\n") == 1
    absent = on_card(*told, "--device", "cuda:1")
    assert absent.status == 2 or "cuda:0" in absent.err


def test_chain_on_a_card_loses_what_it_does_on_the_cpu(
        fettle, on_card, few, tmp_path):
    def chain(run, folder, *more):
        data = ("--data", few, "--tokens", 256, "--seq-len", 64, *more)
        def step(*arguments):
            done = run(*arguments, "--quiet")
            assert done.status == 0, done.err
        step("analyze", MODEL, "--scores", "obs,mask_fisher,reap", *data,
             "--out", folder / "scores")
        step("trim", MODEL, "--scores", folder / "scores", "--keep", 0.5,
             "--score", "obs", "--repair", "ridge", *data, "--out",
             folder / "trimmed")
        step("quant", folder / "trimmed", "--bits", "int4", "--group", 32,
             "--attention", "keep", "--refine", 1, *data, "--out",
             folder / "packed")
        step("tune", folder / "packed", "--method", "lora", "--rank", 4,
             "--data", TRAIN, "--seq-len", 64, "--tokens-per-step", 128,
             "--steps", 2, "--warmup-steps", 1, *more, "--out",
             folder / "tuned", "--merge", folder / "merged")
        # On the CPU, whatever made them.
        return [loss(fettle, folder / name, few, "--quiet")
                for name in ("trimmed", "packed", "merged")]

    cpu, card = (tmp_path / name for name in ("cpu", "card"))
    cpu.mkdir(), card.mkdir()
    expected = chain(fettle, cpu)
    for found, known in zip(chain(on_card, card), expected, strict=True):
        assert abs(found - known) < 0.05
    # Packed weights are multiplied as they are, of few tokens, or unpacked.
    packed = loss(on_card, card / "packed", few)
    assert abs(packed - loss(fettle, card / "packed", few, "--quiet")) < 2e-2
    for model in (MODEL, card / "packed"):
        said = [
            result(run("generate", model, "--prompt", "Tom has 3",
                       "--max-new-tokens", 8, "--json", "-", *more))["ids"]
            for run, more in ((fettle, ("--quiet",)),
                              (on_card, ("--compute-dtype", "float32")))]
        assert said[0] == said[1] and len(said[0]) == 8


TUNE = ("--seq-len", 64, "--tokens-per-step", 64, "--steps", 4,
        "--warmup-steps", 1, "--save-every", 1)
METHODS = {
    "usaf": ("--score-sequences", 4, "--router-warmup", 2),
    "full": ("--states", "disk"),
}


@pytest.mark.parametrize("method", METHODS)
def test_tune_killed_on_a_card_ends_in_the_same_bits(
        program, on_card, place, tmp_path, method):
    def command(out):
        return ("tune", MODEL, "--data", TRAIN, "--method", method, *TUNE,
                *METHODS[method], "--out", out)

    whole, out = tmp_path / "whole", tmp_path / "tuned"
    done = on_card(*command(whole))
    assert done.status == 0, done.err
    process = subprocess.Popen(
        [program, *map(str, command(out)), "--device", "cuda", "--quiet"],
        env={**os.environ, **place}, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "tuned.partial" / "metrics.jsonl"
    for _ in range(6000):
        if process.poll() is not None:
            break
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    assert not out.exists(), "the run ended before it could be stopped"
    done = on_card(*command(out), "--resume")
    assert done.status == 0, done.err
    for file in whole.glob("*.safetensors"):
        assert (out / file.name).read_bytes() == file.read_bytes()


def test_recipe_runs_on_a_card(fettle, on_card, few, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"""
model: {MODEL}
out: {tmp_path / 'work'}
data: {{calibration: [{few}], train: [{TRAIN}], eval: [{few}]}}
seq_len: 64
stages:
  - analyze: {{scores: [wanda], tokens: 256, seq_len: 64}}
  - trim: {{keep: 0.5, round: 8, tokens: 256}}
  - tune: {{steps: 1, tokens_per_step: 128, seq_len: 64, score_sequences: 2}}
  - export: {{format: hf-padded}}
""")
    rows = result(on_card("run", recipe, "--json", "-"))["stages"]
    assert [row["stage"] for row in rows] == [
        "00-original", "01-analyze", "02-trim", "03-tune", "04-merge",
        "05-export"]
    known = loss(fettle, MODEL, few, "--quiet")
    for row in rows:
        if row["stage"] != "01-analyze" and row["stage"] != "03-tune":
            assert abs(row["eval"]["mean_nll"] - known) < 1, row["stage"]
    assert abs(rows[0]["eval"]["mean_nll"] - known) < 1e-2


def test_fit_knows_what_is_free_and_keeps_its_promise(on_card):
    more = on_card("fit", MODEL, "--vram", "1000TiB")
    assert more.status == 1 and "--vram: expected at most" in more.err
    table = result(on_card("fit", MODEL, "--context", 200, "--json", "-"))
    assert table["on_card"] and table["vram_bytes"] > 0
    whole = table["rows"][0]
    assert whole["keep"] == 1 and whole["fits"] == "yes"
    driver = 512 << 20  # beside what --vram bounds
    promised = whole["total_bytes"] - driver
    run = result(on_card("generate", MODEL, "--prompt", "1 + 2 = 3, " * 15,
                         "--max-new-tokens", 4, "--vram", f"{promised}B",
                         "--json", "-"))
    assert 0 < run["peak_vram_bytes"] <= promised
