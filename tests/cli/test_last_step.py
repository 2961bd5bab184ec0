# SPDX-License-Identifier: Apache-2.0
"""The last step of a chain: models made for the program that will run them, and
what is refused, named and told on the way there."""

import json
import pathlib
import stat

import pytest
import torch
from conftest import HELD, MODEL, TRAIN
from safetensors.torch import load_file, save_file
from test_chain import evaluated

CALIBRATE = ["--data", TRAIN, "--tokens", 1024, "--seq-len", 128]


def made(fettle, *arguments) -> dict:
    done = fettle(*arguments, "--quiet", "--json", "-")
    assert done.status == 0, done.err
    return json.loads(done.out)


def refused(done, *words: str) -> None:
    assert done.status in (1, 2), (done.status, done.err)
    if done.status == 1:
        assert len(done.err.strip().splitlines()) == 1, done.err
    for word in words:
        assert word in done.err, done.err


@pytest.mark.parametrize("options", [
    ["--keep", 0.3, "--round", 64, "--widths", "uniform"],
    ["--keep", 0.3, "--round", 64, "--scope", "expert"],
    ["--keep", 0.3, "--round", 64, "--scope", "layer",
     "--widths", "per-layer"],
    ["--keep", 0.05, "--round", 16, "--widths", "uniform"],
    ["--budget", "2MiB", "--round", 64, "--widths", "uniform"],
    ["--keep", 0.0000001],
    ["--keep", 0.5, "--max-width", 8, "--round", 16],
])
def test_a_cut_that_leaves_nothing_is_refused(
        fettle, scores, tmp_path, options):
    out = tmp_path / "out"
    done = fettle("trim", MODEL, "--scores", scores, *options, "--out", out,
                  "--quiet")
    refused(done, "none of", "--round" if "--round" in options else "--keep")
    assert list(tmp_path.iterdir()) == []


def test_a_share_that_could_not_be_met_is_told(fettle, scores, tmp_path):
    done = fettle("trim", MODEL, "--scores", scores, "--keep", 0.5,
                  "--max-width", 40, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert "keeps 0.417 of the neurons, the nearest to 0.5 with " \
        "--max-width 40" in done.err


@pytest.mark.parametrize("options", [["--round", 0], ["--exchange-rate", "inf"]])
def test_bad_numbers_are_refused_in_a_line(fettle, scores, tmp_path, options):
    done = fettle("trim", MODEL, "--scores", scores, "--keep", 0.5,
                  "--unit", "mixed", *options, "--out", tmp_path / "out")
    refused(done, options[0].strip("-"))
    assert len(done.err) < 200


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", ["hf", "hf-padded", "ragged", "gguf"])
def test_export_names_the_weight_that_is_not_finite(
        fettle, model, tmp_path, form, bad):
    file = model / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    weights[name][2, 3] = bad
    save_file(weights, file, {"format": "pt"})
    done = fettle("export", model, "--format", form, "--out",
                  tmp_path / "out", "--quiet")
    refused(done, name, "NaN or infinity")
    assert done.status == 1
    assert not any(p.name.startswith("out") for p in tmp_path.iterdir())


@pytest.mark.parametrize("target, form, width", [
    ("hf", "hf", 48), ("gguf", "gguf", 32), ("vllm", "hf", 64)])
def test_a_trim_tells_what_it_will_weigh(
        fettle, scores, tmp_path, target, form, width):
    """--for says so before the weights are read; the export then does."""
    out, exported = tmp_path / "trimmed", tmp_path / "exported"
    told = made(fettle, "trim", MODEL, "--scores", scores, "--keep", 0.5,
                "--for", target, "--out", out)
    assert told["target"]["format"] == form
    assert told["after"]["min_width"] == told["after"]["max_width"] == width
    result = made(fettle, "export", out, "--format", form, "--out", exported)
    assert result["after"]["bytes"] == told["target"]["bytes"]
    assert result["padded_neurons"] == 0


@pytest.mark.parametrize("target", ["hf", "gguf"])
@pytest.mark.parametrize("unit", ["neuron", "mixed"])
def test_a_budget_counts_in_the_targets_format(
        fettle, scores, tmp_path, target, unit):
    told = made(fettle, "trim", MODEL, "--scores", scores, "--budget", "4MiB",
                "--unit", unit, "--for", target, "--plan-only",
                "--out", tmp_path / "plan")
    assert 3 * 2**20 < told["target"]["bytes"] <= 4 * 2**20


@pytest.mark.parametrize("options, words", [
    (["--widths", "free"], ["--widths"]),
    (["--round", 3], ["multiple of 8"]),
    (["--unit", "expert", "--scope", "global"], ["--scope global"]),
    (["--repair", "constant"], ["constant"]),
])
def test_a_trim_that_the_target_can_not_run_is_refused(
        fettle, scores, tmp_path, options, words):
    done = fettle("trim", MODEL, "--scores", scores, "--keep", 0.5, "--for",
                  "hf", *options, "--out", tmp_path / "out", "--quiet")
    refused(done, *words)


def test_whole_experts_for_another_program(fettle, scores, tmp_path):
    out = tmp_path / "out"
    made(fettle, "trim", MODEL, "--scores", scores, "--keep", 0.5, "--unit",
         "expert", "--for", "hf", "--out", out)
    made(fettle, "export", out, "--format", "hf", "--out", tmp_path / "hf")


def test_ragged_models_have_names_of_their_own(fettle, scores, tmp_path):
    """Which other loaders do not look for; old names are still read."""
    out = tmp_path / "trimmed"
    made(fettle, "trim", MODEL, "--scores", scores, "--keep", 0.5,
         "--out", out)
    assert not (out / "model.safetensors").exists()
    loss = evaluated(fettle, out)["files"][0]["nll"]
    refused(fettle("export", out, "--format", "hf", "--out", tmp_path / "hf"),
            "--widths uniform", "--for hf")
    (out / "fettle.safetensors").rename(out / "model.safetensors")
    assert evaluated(fettle, out)["files"][0]["nll"] == loss
    (out / "fettle.safetensors").write_bytes(b"")
    refused(fettle("inspect", out), "weights of two models")


def test_bits_are_schemes_and_averages_have_a_point(fettle, tmp_path):
    plain = made(fettle, "quant", MODEL, "--method", "rtn", "--bits", 4,
                 "--out", tmp_path / "4")
    named = made(fettle, "quant", MODEL, "--method", "rtn", "--bits", "int4",
                 "--out", tmp_path / "int4")
    assert plain["after"] == named["after"]
    assert "plan" not in plain
    shared = made(fettle, "quant", MODEL, "--method", "rtn", "--average-bits",
                  4.5, "--plan-only", "--out", tmp_path / "mean")
    assert shared["plan"]["bytes"] > named["after"]["bytes"]
    refused(fettle("quant", MODEL, "--bits", 5, "--out", tmp_path / "5"),
            "int4", "4.0")
    refused(fettle("quant", MODEL, "--bits", 4, "--average-bits", 4.5,
                   "--out", tmp_path / "both"), "--average-bits")


@pytest.mark.parametrize("options, word", [
    (["--budget", "3 apples"], "size"),
    (["--budget", "100KiB"], "the smallest of --candidates takes"),
    (["--average-bits", 1.5], "the smallest of --candidates take"),
    (["--for", "vllm", "--bits", "ternary"], "ternary"),
    (["--for", "gguf", "--group", 24], "GGUF"),
    (["--for", "vllm", "--budget", "100KiB"], "as compressed-tensors"),
    (["--for", "hf", "--bits", 4, "--down", 8], "one scheme"),
])
def test_quant_refuses_before_it_reads_any_data(
        fettle, tmp_path, options, word):
    data = tmp_path / "data.jsonl"
    data.write_text("no line that could be read")
    done = fettle("quant", MODEL, "--data", data, *options,
                  "--out", tmp_path / "out", "--quiet")
    refused(done, word)
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("target, form", [
    ("gguf", "gguf"), ("vllm", "compressed-tensors"),
    ("hf", "compressed-tensors")])
def test_a_quant_tells_what_it_will_weigh(fettle, tmp_path, target, form):
    out = tmp_path / "packed"
    told = made(fettle, "quant", MODEL, "--method", "rtn", "--for", target,
                "--out", out)
    assert told["target"]["format"] == form
    result = made(fettle, "export", out, "--format", form,
                  "--out", tmp_path / "exported")
    assert result["after"]["bytes"] == told["target"]["bytes"]


def test_a_budget_in_a_targets_format_chooses_its_schemes(fettle, tmp_path):
    told = made(fettle, "quant", MODEL, "--method", "rtn", "--for", "gguf",
                "--budget", "2600KiB", "--out", tmp_path / "packed")
    assert 1600 * 1024 < told["target"]["bytes"] <= 2600 * 1024
    result = made(fettle, "export", tmp_path / "packed", "--format", "gguf",
                  "--out", tmp_path / "gguf")
    assert result["after"]["bytes"] == told["target"]["bytes"]


def test_what_was_measured_outlives_a_refusal(fettle, tmp_path):
    """Coded trits have no size before they are made, so that a budget can be
    found too small only then."""
    common = ["quant", MODEL, *CALIBRATE, "--candidates", "ternary-coded,int2",
              "--out", tmp_path / "out", "--quiet"]
    refused(fettle(*common, "--budget", "900KiB"), "--resume")
    errors = (tmp_path / "out.partial" / "quant_errors.json").read_bytes()
    done = fettle(*common, "--budget", "2MiB", "--plan-only", "--resume")
    assert done.status == 0, done.err
    assert (tmp_path / "out" / "quant_errors.json").read_bytes() == errors


@pytest.mark.parametrize("stage", ["trim", "quant"])
def test_quality_is_that_of_eval(fettle, scores, tmp_path, stage):
    options = {"trim": ["--scores", scores, "--keep", 0.25],
               "quant": ["--method", "rtn", "--bits", 2]}[stage]
    out = tmp_path / "out"
    result = made(fettle, stage, MODEL, *options, "--eval-data", HELD,
                  "--seq-len", 256, "--out", out)
    quality = result["quality"]["files"][0]
    meant = evaluated(fettle, out, "--against", MODEL)["files"][0]
    for key in ("nll", "kl", "top1", "tokens"):
        assert quality[key] == pytest.approx(meant[key], rel=1e-6)
    before = evaluated(fettle, MODEL)["files"][0]
    assert quality["nll_before"] == pytest.approx(before["nll"], rel=1e-6)
    manifest = json.loads((out / "fettle.json").read_text())
    assert manifest["stages"][-1]["measured"]["quality"] == result["quality"]
    page = (out / "report.html").read_text()
    assert page.index("Quality on held-out text") < page.index("</table>")
    assert f"{quality['nll']:.4f}" in page


def test_whole_experts_with_data_are_repaired(fettle, scores, tmp_path):
    result = made(fettle, "trim", MODEL, "--scores", scores, "--keep", 0.5,
                  "--unit", "expert", *CALIBRATE, "--out", tmp_path / "out")
    assert result["repair"]["refitted"] > 0


def test_an_export_in_another_type_ends_with_nothing_alarming(
        fettle, tmp_path):
    packed = tmp_path / "packed"
    made(fettle, "quant", MODEL, "--method", "rtn", "--out", packed)
    done = fettle("export", packed, "--format", "hf-padded", "--out",
                  tmp_path / "out", "--quiet")
    assert done.status == 0, done.err
    assert "every weight is as meant" in done.out
    weights = load_file(tmp_path / "out" / "model.safetensors")
    # The type that config.json names, though unpacking gives fp32.
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}


def test_companions_are_carried_and_can_be_written(fettle, model, tmp_path):
    more = model / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ messages }}")
    for path in (*model.iterdir(), more / "tool_use.jinja"):
        if path.is_file():
            path.chmod(stat.S_IRUSR)
    out = tmp_path / "out"
    made(fettle, "export", model, "--format", "hf", "--out", out)
    copy = out / "additional_chat_templates" / "tool_use.jinja"
    assert copy.read_text() == "{{ messages }}"
    for path in (copy, *(p for p in out.iterdir() if p.is_file())):
        assert pathlib.Path(path).stat().st_mode & stat.S_IWUSR, path
