# SPDX-License-Identifier: Apache-2.0
"""Quantizing as a person does it: killed and resumed, and what comes after."""

import json
import pathlib
import shutil
import subprocess
import time

import numpy
import pytest
import torch
from conftest import HELD, MODEL, TRAIN
from safetensors.torch import load_file, save_file
from test_chain import evaluated, files_of

CALIBRATE = ["--data", TRAIN, "--tokens", 4096, "--seq-len", 128]


@pytest.fixture(scope="module")
def packed(fettle, tmp_path_factory) -> pathlib.Path:
    """The bundled model at int4."""
    out = tmp_path_factory.mktemp("quant") / "int4"
    done = fettle("quant", MODEL, *CALIBRATE, "--out", out, "--quiet")
    assert done.status == 0, done.err
    return out


def distance(fettle, folder: pathlib.Path) -> float:
    """KL of the model to the one that was quantized."""
    return evaluated(fettle, folder, "--against", MODEL)["files"][0]["kl"]


def measured(folder: pathlib.Path) -> dict:
    return json.loads((folder / "quant_report.json").read_text())


def weight_files(folder: pathlib.Path) -> dict[str, bytes]:
    return {name: content for name, content in files_of(folder).items()
            if name.endswith(".safetensors")}


@pytest.mark.parametrize("bits, excess", [
    ("int8", 0.002), ("int4", 0.02), ("int3", 0.06), ("int2", 0.3),
    ("ternary", 0.6), ("ternary-coded", 0.6),
])
def test_fewer_bits_are_smaller_and_gptq_loses_less(
        fettle, tmp_path, bits, excess):
    kl, sizes = {}, {}
    for method in ("rtn", "gptq"):
        out = tmp_path / method
        data = CALIBRATE if method == "gptq" else []
        done = fettle("quant", MODEL, "--bits", bits, "--method", method, *data,
                      "--out", out, "--quiet")
        assert done.status == 0, done.err
        kl[method] = distance(fettle, out)
        sizes[method] = measured(out)["after"]["bytes"]
    assert kl["gptq"] < kl["rtn"]
    assert kl["gptq"] < excess
    assert sizes["gptq"] <= measured(tmp_path / "gptq")["before"]["bytes"]


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3, 0.6, 1.0])
def test_killed_and_resumed_is_the_same(program, fettle, packed, tmp_path, delay):
    out = tmp_path / "out"
    command = ["quant", MODEL, *CALIBRATE, "--out", out, "--quiet"]
    process = subprocess.Popen([program, *map(str, command)],
                               stdout=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    if not out.exists():  # else it was quicker than the signal
        done = fettle(*command, "--resume")
        assert done.status == 0, done.err
    assert weight_files(out) == weight_files(packed)
    assert measured(out)["after"] == measured(packed)["after"]


def test_resume_of_something_else_is_refused(program, fettle, tmp_path):
    out = tmp_path / "out"
    command = ["quant", MODEL, *CALIBRATE, "--out", out, "--quiet"]
    process = subprocess.Popen([program, *map(str, command)],
                               stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("out.partial/packed-00002*.safetensors")):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    for option, word in ((["--bits", "int2"], "schemes"),
                         (["--damping", "0.1"], "damping"),
                         (["--data", HELD], "data")):
        done = fettle(*command, "--resume", *option)
        assert done.status == 1 and word in done.err, done.err


def test_statistics_in_several_passes_are_the_same(fettle, packed, tmp_path):
    out = tmp_path / "out"
    done = fettle("quant", MODEL, *CALIBRATE, "--moments", "100KiB",
                  "--out", out, "--quiet")
    assert done.status == 0, done.err
    assert weight_files(out) == weight_files(packed)


@pytest.mark.parametrize("options", [
    ["--calibrate", "all"], ["--plain-gate"], ["--starved", "rtn"],
    ["--act-order"], ["--group", 0], ["--group", 24, "--zeros", "yes"],
    ["--attention", "int4", "--embeddings", "int8"],
])
def test_variants_stay_near_the_model(fettle, tmp_path, options):
    out = tmp_path / "out"
    done = fettle("quant", MODEL, *CALIBRATE, *options, "--out", out, "--quiet")
    assert done.status == 0, done.err
    assert distance(fettle, out) < 0.03


def test_a_packed_model_goes_through_the_chain(fettle, packed, tmp_path):
    scores, trimmed, tuned, merged = (
        tmp_path / name for name in ("scores", "trimmed", "tuned", "merged"))
    for command in (
            ["analyze", packed, *CALIBRATE, "--out", scores],
            ["trim", packed, "--scores", scores, "--keep", 0.75, *CALIBRATE,
             "--out", trimmed],
            ["tune", packed, "--data", TRAIN, "--steps", 3,
             "--tokens-per-step", 512, "--seq-len", 128, "--out", tuned],
            ["merge", packed, "--adapter", tuned, "--out", merged]):
        done = fettle(*command, "--quiet")
        assert done.status == 0, done.err
    whole = evaluated(fettle, packed)["mean_nll"]
    assert evaluated(fettle, trimmed)["mean_nll"] < whole + 0.1
    sizes = json.loads((trimmed / "fettle.json").read_text())["stages"][-1][
        "measured"]
    assert sizes["after"]["bytes"] < 0.95 * sizes["before"]["bytes"]
    after = evaluated(fettle, merged)["mean_nll"]
    assert after != whole and after < whole + 0.05


def test_quantizing_what_is_packed_keeps_what_is_kept(
        fettle, packed, tmp_path):
    out = tmp_path / "out"
    done = fettle("quant", packed, "--method", "rtn", "--bits", "keep",
                  "--attention", "keep", "--out", out, "--quiet")
    assert done.status == 0, done.err
    assert (evaluated(fettle, out)["mean_nll"]
            == evaluated(fettle, packed)["mean_nll"])


def test_generate_says_what_the_unpacked_model_says(fettle, packed, tmp_path):
    plain = tmp_path / "plain"
    assert fettle("export", packed, "--format", "hf", "--out", plain,
                  "--quiet").status == 0
    said = [
        json.loads(fettle("generate", folder, "--prompt", "Question: 2 + 3",
                          "--max-new-tokens", 24, "--json", "-").out)["text"]
        for folder in (packed, plain)]
    assert said[0] == said[1]


@pytest.mark.parametrize("options, word", [
    (["--bits", "int5"], "int5"),
    (["--group", -1], "--group"),
    (["--method", "gptq"], "--data"),
    (["--damping", 0, *CALIBRATE], "--damping"),
])
def test_bad_options(fettle, tmp_path, options, word):
    done = fettle("quant", MODEL, *options, "--out", tmp_path / "out")
    assert done.status == 2 and word in done.err, done.err


def test_data_without_tokens(fettle, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": ""}\n')
    done = fettle("quant", MODEL, "--data", data, "--out", tmp_path / "out")
    assert done.status == 1 and "token" in done.err, done.err


def test_data_that_reaches_few_experts(fettle, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "2 + 3"}\n')
    out = tmp_path / "out"
    done = fettle("quant", MODEL, "--data", data, "--out", out, "--quiet")
    assert done.status == 0, done.err
    roles = [r for layer in measured(out)["layers"]
             for r in layer["roles"].values()]
    assert sum(r["unseen"] for r in roles) > 10
    assert sum(r["scarce"] for r in roles) > 50


def test_weights_that_are_not_finite(fettle, model, tmp_path):
    path = next(model.glob("*.safetensors"))
    weights = load_file(path)
    name = next(n for n in weights if "experts.1.up_proj" in n)
    weights[name][0, 0] = torch.nan
    save_file(weights, path, {"format": "pt"})
    for options in (["--method", "rtn"], CALIBRATE):
        done = fettle("quant", model, *options, "--restart", "--out",
                      tmp_path / "out")
        assert done.status == 1 and name in done.err, done.err


def test_a_flipped_byte_names_the_weight(fettle, packed, tmp_path):
    damaged = pathlib.Path(shutil.copytree(packed, tmp_path / "damaged"))
    path = sorted(damaged.glob("packed-*.safetensors"))[1]
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:8 + header])
    name, tensor = next(
        (n, t) for n, t in tensors.items() if n.endswith("down_proj.weight.packed"))
    begin, end = tensor["data_offsets"]
    rng = numpy.random.default_rng(5)
    for at in rng.integers(begin, end, 12):
        broken = bytearray(content)
        broken[8 + header + int(at)] ^= 1 << int(at) % 8
        path.write_bytes(broken)
        done = fettle("eval", damaged, "--data", HELD, "--quiet")
        assert done.status == 1 and name in done.err, done.err


@pytest.mark.parametrize("method", [
    "usaf", "smt", "esft", "lora", "full", "router", "usaf+condenser"])
def test_tuning_packed_weights_is_tuning_their_values(
        fettle, packed, tmp_path, method):
    plain = tmp_path / "plain"
    assert fettle("export", packed, "--format", "hf", "--dtype", "float32",
                  "--out", plain, "--quiet").status == 0
    losses, merged = [], []
    for name, model in (("a", packed), ("b", plain)):
        out, whole = tmp_path / name, tmp_path / (name + "-merged")
        done = fettle("tune", model, "--data", TRAIN, "--method", method,
                      "--steps", 3, "--tokens-per-step", 512, "--seq-len", 128,
                      "--out", out, "--merge", whole, "--merge-dtype", "float32",
                      "--quiet")
        assert done.status == 0, done.err
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line).get("loss") for line in lines])
        merged.append(evaluated(fettle, whole)["mean_nll"])
    assert losses[0] == losses[1]
    assert merged[0] == merged[1]


def test_bits_are_shared_out_within_a_budget(fettle, packed, tmp_path):
    mean, budget, again = (tmp_path / name for name in ("mean", "bytes", "plan"))
    for out, options in ((mean, ["--bits", "2.5"]),
                         (budget, ["--budget", "1400KiB"]),
                         (again, ["--plan", mean / "quant_plan.json"])):
        done = fettle("quant", MODEL, *CALIBRATE, *options, "--out", out,
                      "--quiet")
        assert done.status == 0, done.err
    roles = [(name, role) for layer in measured(mean)["layers"]
             for name, role in layer["roles"].items() if "expert" in name]
    size = sum(role["bytes"] for _, role in roles)
    assert size * 8 <= 2.5 * sum(role["weights"] for _, role in roles)
    assert measured(budget)["after"]["bytes"] <= 1400 * 1024
    assert weight_files(again) == weight_files(mean)
    assert distance(fettle, budget) < distance(fettle, mean) < 0.03
    other = fettle("quant", packed, *CALIBRATE, "--plan",
                   mean / "quant_plan.json", "--out", tmp_path / "other")
    assert other.status == 1 and "model" in other.err, other.err
    small = fettle("quant", MODEL, *CALIBRATE, "--budget", "100KiB",
                   "--out", tmp_path / "small")
    assert small.status == 1 and "smallest" in small.err, small.err


@pytest.mark.parametrize("content, word", [
    (None, "no such file"), ("", "not valid JSON"), ("[]", "JSON object")])
def test_errors_that_are_none(fettle, tmp_path, content, word):
    errors = tmp_path / "quant_errors.json"
    if content is not None:
        errors.write_text(content)
    done = fettle("quant", MODEL, "--method", "rtn", "--bits", "2.5",
                  "--errors", errors, "--out", tmp_path / "out")
    assert done.status == 1 and "quant_errors.json" in done.err, done.err
    assert word in done.err, done.err
