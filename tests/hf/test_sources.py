# SPDX-License-Identifier: Apache-2.0
"""Models that other tools stored in few bits: their values against what
transformers and the tools' own packages make of them."""

from __future__ import annotations

import json
import pathlib
import subprocess

import coded_models
import expert_trace
import pytest
import quantized_models
import tiny_models
import torch
import transformers
from test_export import assert_close, transformers_logits

BLOCK = (16, 16)


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(5, 17)


def model(family: str, tmp_path: pathlib.Path, **changes) -> pathlib.Path:
    return quantized_models.make(family, tmp_path / "model", **changes)


def in_bf16(source: pathlib.Path) -> pathlib.Path:
    """The model with its weights in bf16, in its place."""
    file = expert_trace.weights_file(source)
    tensors = expert_trace.safetensors.torch.load_file(file)
    expert_trace.safetensors.torch.save_file(
        {name: t.bfloat16() for name, t in tensors.items()},
        file,
        metadata={"format": "pt"},
    )
    config = json.loads((source / "config.json").read_text())
    config["dtype"] = "bfloat16"
    (source / "config.json").write_text(json.dumps(config))
    return source


def plain(fettle, folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """What Fettle reads, as transformers names and holds it."""
    out = quantized_models.export(fettle, folder, "hf-padded")
    return tiny_models.load(out).state_dict()


def reference(folder: pathlib.Path, **options) -> torch.nn.Module:
    """What transformers makes of it, in fp32."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        **options,
    ).eval()


def assert_same(found: dict[str, torch.Tensor], expected) -> None:
    assert set(found) <= set(expected)
    for name, weight in found.items():
        assert torch.equal(weight, expected[name].float()), name


@pytest.mark.parametrize(
    "family, scale_type",
    [(family, torch.float32) for family in quantized_models.FAMILIES]
    + [
        ("qwen3_moe", torch.bfloat16),
        ("qwen3_moe", torch.float8_e8m0fnu),
    ],
)
def test_fp8_blocks_are_what_transformers_reads(
    family, scale_type, fettle, build_dir, ids, tmp_path
):
    coded = coded_models.write_fp8(
        model(family, tmp_path), tmp_path / "coded", BLOCK, scale_type
    )
    expected = reference(coded)
    assert_same(plain(fettle, coded), expected.state_dict())
    assert_close(
        expert_trace.fettle_logits(build_dir, coded, ids),
        transformers_logits(expected, ids),
    )


def test_stacked_fp8_experts_are_those_of_single_ones(
    fettle, build_dir, ids, tmp_path
):
    single = coded_models.write_fp8(
        model("qwen3_moe", tmp_path), tmp_path / "single", BLOCK
    )
    stacked = coded_models.fuse_fp8(single, tmp_path / "stacked")
    assert torch.equal(
        expert_trace.fettle_logits(build_dir, single, ids),
        expert_trace.fettle_logits(build_dir, stacked, ids),
    )
    # Without a card transformers reads no stacks; with one it holds them so.
    found = reference(single).state_dict()
    assert_same(plain(fettle, stacked), found)


def test_fp8_with_short_blocks_at_the_edges(fettle, tmp_path):
    source = model("qwen3_moe", tmp_path)
    block = (24, 40)
    coded = coded_models.write_fp8(source, tmp_path / "coded", block)
    stored = expert_trace.safetensors.torch.load_file(
        coded / "model.safetensors"
    )
    found = plain(fettle, coded)
    for name, codes in stored.items():
        if codes.dtype != torch.float8_e4m3fn or ".experts." in name:
            continue
        scales = stored[name + "_scale_inv"]
        rows = torch.arange(codes.shape[0]) // block[0]
        cols = torch.arange(codes.shape[1]) // block[1]
        expected = codes.float() * scales[rows][:, cols]
        assert torch.equal(found[name], expected), name


COMPRESSED = {
    "int4 groups": ("pack-quantized", {
        "num_bits": 4, "strategy": "group", "group_size": 16}),
    "int4 groups, zeros": ("pack-quantized", {
        "num_bits": 4, "strategy": "group", "group_size": 32,
        "symmetric": False}),
    "int8 rows": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
    "int8 rows, zeros": ("pack-quantized", {
        "num_bits": 8, "strategy": "channel", "symmetric": False}),
    "int3 groups": ("pack-quantized", {
        "num_bits": 3, "strategy": "group", "group_size": 16}),
    "int8 bytes": ("int-quantized", {"num_bits": 8, "strategy": "channel"}),
    "fp8 rows": ("float-quantized", {
        "num_bits": 8, "type": "float", "strategy": "channel"}),
    "fp8 tensor": ("float-quantized", {
        "num_bits": 8, "type": "float", "strategy": "tensor"}),
}


@pytest.mark.parametrize("scheme", COMPRESSED)
def test_compressed_tensors_are_what_the_package_reads(
    scheme, fettle, build_dir, ids, tmp_path
):
    source = model("qwen3_moe", tmp_path)
    form, arguments = COMPRESSED[scheme]
    values = coded_models.write_compressed(
        source, tmp_path / "coded", form, **arguments
    )
    check_values(fettle, build_dir, ids, source, tmp_path / "coded", values)


def check_values(fettle, build_dir, ids, source, coded, values) -> None:
    """Fettle reads `values` in `coded`, exactly, and computes with them."""
    assert len(values) > 50
    expected = tiny_models.load(
        coded_models.write_values(source, coded.parent / "expected", values)
    )
    assert_same(plain(fettle, coded), expected.state_dict())
    assert_close(
        expert_trace.fettle_logits(build_dir, coded, ids),
        transformers_logits(expected, ids),
    )


def test_sixteen_bits_round_as_the_package_rounds(fettle, tmp_path):
    source = in_bf16(model("qwen3_moe", tmp_path))
    coded = tmp_path / "coded"
    form, arguments = COMPRESSED["int4 groups, zeros"]
    values = coded_models.write_compressed(
        source, coded, form, torch.bfloat16, **arguments
    )
    out = quantized_models.export(fettle, coded, "ragged")
    stored = expert_trace.safetensors.torch.load_file(
        expert_trace.weights_file(out)
    )
    for name, value in values.items():
        assert value.dtype == stored[name].dtype == torch.bfloat16
        assert torch.equal(stored[name], value), name


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4, "group": 16},
        {"bits": 4, "group": 32, "version": 2},
        {"bits": 4, "group": 16, "act_order": True},
        {"bits": 3, "group": 32},
        {"bits": 2, "group": 16, "version": 2, "act_order": True},
        {"bits": 8, "group": 32},
    ],
    ids=str,
)
def test_gptq_is_what_its_layout_says(
    options, fettle, build_dir, ids, tmp_path
):
    source = model("qwen3_moe", tmp_path)
    values = coded_models.write_gptq(source, tmp_path / "coded", **options)
    check_values(fettle, build_dir, ids, source, tmp_path / "coded", values)


def test_awq_is_what_its_layout_says(fettle, build_dir, ids, tmp_path):
    source = model("qwen3_moe", tmp_path)
    values = coded_models.write_awq(source, tmp_path / "coded", 32)
    check_values(fettle, build_dir, ids, source, tmp_path / "coded", values)


@pytest.mark.parametrize("form", ["compressed-tensors", "gptq"])
def test_what_fettle_exports_it_reads_again(
    form, fettle, build_dir, ids, tmp_path
):
    source = model("qwen3_moe", tmp_path)
    packed = quantized_models.quantize(
        fettle, source, "--bits", "int4", "--group", 32
    )
    exported = quantized_models.export(fettle, packed, form, "--recode")
    assert_close(
        expert_trace.fettle_logits(build_dir, exported, ids),
        expert_trace.fettle_logits(build_dir, packed, ids),
    )


# --- Trims ---


def scored(fettle, folder: pathlib.Path, ids) -> pathlib.Path:
    data = expert_trace.write_ids(folder.parent / "data.jsonl", ids)
    scores = folder.parent / "scores"
    expert_trace.run(
        fettle, "analyze", folder, "--data", data, "--out", scores,
        "--scores", "wanda", "--tokens", 0,
    )
    return scores


def trimmed(fettle, folder: pathlib.Path, *options) -> pathlib.Path:
    out = folder.parent / "trimmed"
    expert_trace.run(
        fettle, "trim", folder, "--scores", folder.parent / "scores",
        "--out", out, *options,
    )
    return out


def spans(text: str) -> list[int]:
    found: list[int] = []
    for span in filter(None, text.split(",")):
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def stored_tensors(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return expert_trace.safetensors.torch.load_file(
        expert_trace.weights_file(folder)
    )


@pytest.mark.parametrize("stacked", [False, True], ids=["single", "stacked"])
@pytest.mark.parametrize(
    "options",
    [
        ("--unit", "expert", "--scope", "layer"),
        ("--stored", "keep", "--widths", "uniform"),
        ("--stored", "keep"),
    ],
    ids=["experts", "uniform blocks", "blocks"],
)
def test_kept_trims_copy_codes_and_scales(
    options, stacked, fettle, build_dir, ids, tmp_path
):
    single = coded_models.write_fp8(
        model("qwen3_moe", tmp_path, moe_intermediate_size=64),
        tmp_path / "single",
        BLOCK,
    )
    source = (
        coded_models.fuse_fp8(single, tmp_path / "stacked")
        if stacked
        else single
    )
    scored(fettle, source, ids)
    out = trimmed(fettle, source, "--keep", 0.5, *options)
    before, after = stored_tensors(single), stored_tensors(out)
    plan = json.loads((out / "trim_plan.json").read_text())
    compared = cut = 0
    for layer, part in enumerate(plan["layers"]):
        for place, expert in enumerate(part["experts"]):
            kept = torch.tensor(spans(expert["neurons"]), dtype=torch.long)
            blocks = kept[::BLOCK[0]] // BLOCK[0]
            cut += len(kept) < 64
            for kind in ("gate", "up", "down"):
                end = f"{kind}_proj.weight"
                old = f"model.layers.{layer}.mlp.experts.{expert['expert']}.{end}"
                new = f"model.layers.{layer}.mlp.experts.{place}.{end}"
                axis = 1 if kind == "down" else 0
                codes = before[old].view(torch.uint8)
                scales = before[old + "_scale_inv"]
                assert torch.equal(
                    after[new].view(torch.uint8), codes.index_select(axis, kept)
                )
                assert torch.equal(
                    after[new + "_scale_inv"],
                    scales.index_select(axis, blocks),
                )
                compared += 1
    assert compared > 10 and (cut > 0) == ("expert" not in options)
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "fp8"
    found = expert_trace.fettle_logits(build_dir, out, ids)
    if "fettle" not in config:
        assert_close(found, transformers_logits(reference(out), ids))
    plain_out = trimmed_plain(fettle, single, out)
    assert torch.equal(
        found, expert_trace.fettle_logits(build_dir, plain_out, ids)
    )


def trimmed_plain(fettle, single, out) -> pathlib.Path:
    """The same plan carried out on the values; a stack's is a single's."""
    plain_out = single.parent / "plain"
    expert_trace.run(
        fettle, "trim", single, "--out", plain_out,
        "--plan", out / "trim_plan.json", "--stored", "bf16",
    )
    config = json.loads((plain_out / "config.json").read_text())
    assert "quantization_config" not in config
    return plain_out


@pytest.fixture(scope="module")
def fp8(fettle, ids, tmp_path_factory) -> pathlib.Path:
    """A scored model in blocks of fp8, beside its plain source."""
    folder = tmp_path_factory.mktemp("fp8")
    coded = coded_models.write_fp8(
        model("qwen3_moe", folder, moe_intermediate_size=64),
        folder / "coded",
        BLOCK,
    )
    scored(fettle, coded, ids)
    return coded


def said(fettle, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(fettle), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_inspect_says_how_weights_are_stored(fettle, fp8, tmp_path):
    report = tmp_path / "report.json"
    assert said(fettle, "inspect", fp8, "--json", report).returncode == 0
    experts = json.loads(report.read_text())["parts"]["experts"]
    assert list(experts["stored_as"]) == ["fp8 in blocks of 16 x 16"]
    # A byte a weight, and a scale of four bytes for 256 weights.
    assert experts["bytes"] == experts["parameters"] * (1 + 4 / 256)


def test_trim_says_whether_codes_are_kept(fettle, fp8, tmp_path):
    common = (
        "trim", fp8, "--scores", fp8.parent / "scores", "--keep", 0.5,
    )
    cut = said(fettle, *common, "--out", tmp_path / "cut")
    assert cut.returncode == 0
    assert "writes values in 16 bits: expert 0 of layer 0 keeps" in cut.stderr
    assert "plan with --stored keep to cut such blocks" in cut.stderr
    whole = said(
        fettle, *common, "--unit", "expert", "--out", tmp_path / "whole"
    )
    assert "codes and scales stay as they are stored" in whole.stderr
    kept = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert kept["quantization_config"]["quant_method"] == "fp8"


def test_trim_refuses_to_keep_what_it_changes(fettle, fp8, tmp_path):
    scores = fp8.parent / "scores"
    common = ("--keep", 0.5, "--stored", "keep", "--out", tmp_path / "out")
    refit = said(
        fettle, "trim", fp8, "--scores", scores, *common,
        "--data", fp8.parent / "data.jsonl", "--repair", "ridge",
    )
    assert refit.returncode != 0
    assert "make new values" in refit.stderr
    assert "--stored bf16" in refit.stderr
    narrow = said(
        fettle, "trim", fp8, "--scores", scores, *common, "--round", 8
    )
    assert narrow.returncode != 0
    assert "expected a multiple of 16" in narrow.stderr


def test_stored_is_for_coded_models(fettle, fp8, ids, tmp_path):
    plain_model = model("qwen3_moe", tmp_path)
    scored(fettle, plain_model, ids)
    refused = said(
        fettle, "trim", plain_model, "--scores", tmp_path / "scores",
        "--keep", 0.5, "--stored", "keep", "--out", tmp_path / "out",
    )
    assert refused.returncode != 0
    assert "leave --stored out" in refused.stderr


@pytest.mark.parametrize("form", ["gptq", "awq", "compressed-tensors"])
def test_trims_of_other_codes_write_values(form, fettle, ids, tmp_path):
    source = in_bf16(model("qwen3_moe", tmp_path))
    coded = tmp_path / "coded"
    if form == "gptq":
        coded_models.write_gptq(source, coded, 4, 16)
    elif form == "awq":
        coded_models.write_awq(source, coded, 32)
    else:
        form, arguments = COMPRESSED["int4 groups"]
        coded_models.write_compressed(source, coded, form, **arguments)
    scored(fettle, coded, ids)
    out = trimmed(fettle, coded, "--keep", 0.5, "--unit", "expert")
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config
    types = {t.dtype for t in stored_tensors(out).values()}
    assert types == {torch.bfloat16}
    refused = said(
        fettle, "trim", coded, "--scores", tmp_path / "scores", "--keep", 0.5,
        "--stored", "keep", "--out", tmp_path / "kept",
    )
    assert "of which Fettle writes no part" in refused.stderr


def test_tuning_a_coded_model_merges_into_a_plain_one(
    fettle, fp8, ids, tmp_path
):
    tuned, merged = tmp_path / "tuned", tmp_path / "merged"
    expert_trace.run(
        fettle, "tune", fp8, "--data", fp8.parent / "data.jsonl",
        "--method", "lora", "--steps", 2, "--out", tuned, "--merge", merged,
    )
    config = json.loads((merged / "config.json").read_text())
    assert "quantization_config" not in config
    before, after = plain(fettle, fp8), tiny_models.load(merged).state_dict()
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    assert changed and all("experts" in n or "proj" in n for n in changed)
