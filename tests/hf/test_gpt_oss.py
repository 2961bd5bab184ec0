# SPDX-License-Identifier: Apache-2.0
"""gpt-oss in MXFP4, as it is released: read, trimmed without a code changed, and
as GGUF."""

from __future__ import annotations

import json
import pathlib
import subprocess

import coded_models
import expert_trace
import gguf
import numpy as np
import pytest
import quantized_models
import tiny_models
import torch
import transformers
from test_export import assert_close, transformers_logits
from test_sources import reference, scored, spans, stored_tensors


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(5, 17)


@pytest.fixture(scope="module")
def coded(fettle, ids, tmp_path_factory) -> pathlib.Path:
    """A model with its scores beside it."""
    folder = tmp_path_factory.mktemp("mxfp4")
    source = quantized_models.make("gpt_oss", folder / "model")
    model = coded_models.write_mxfp4(source, folder / "coded")
    scored(fettle, model, ids)
    return model


def mxfp4_reference(folder: pathlib.Path) -> torch.nn.Module:
    config = transformers.Mxfp4Config(dequantize=True)
    return reference(folder, quantization_config=config).float()


def stacks(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """Codes and scales."""
    return {
        name: tensor
        for name, tensor in stored_tensors(folder).items()
        if name.endswith(("_blocks", "_scales"))
    }


def test_mxfp4_is_what_transformers_reads(coded, fettle, build_dir, ids):
    assert_close(
        expert_trace.fettle_logits(build_dir, coded, ids),
        transformers_logits(mxfp4_reference(coded), ids),
    )
    # The values are exact in bf16, and written so.
    plain = quantized_models.export(fettle, coded, "hf")
    found = tiny_models.load(plain).state_dict()
    parts = stacks(coded)
    for name in parts:
        if not name.endswith("_blocks"):
            continue
        stem = name.removesuffix("_blocks")
        values = coded_models.mxfp4_values(parts[name], parts[stem + "_scales"])
        assert torch.equal(found[stem], values.transpose(1, 2)), stem


@pytest.mark.parametrize(
    "options",
    [
        ("--unit", "expert", "--scope", "layer"),
        ("--widths", "uniform"),
        (),
    ],
    ids=["experts", "neurons", "ragged"],
)
def test_kept_trims_copy_codes_and_scales(
    options, coded, fettle, build_dir, ids, tmp_path
):
    out = tmp_path / "out"
    expert_trace.run(
        fettle, "trim", coded, "--scores", coded.parent / "scores", "--out",
        out, "--keep", 0.5, "--stored", "keep", *options,
    )
    plan = json.loads((out / "trim_plan.json").read_text())
    before, after = stacks(coded), stacks(out)
    for layer, kept in enumerate(plan["layers"]):
        prefix = f"model.layers.{layer}.mlp.experts."
        for place, entry in enumerate(kept["experts"]):
            neurons = torch.tensor(spans(entry["neurons"]), dtype=torch.long)
            rows = torch.stack([2 * neurons, 2 * neurons + 1], 1).flatten()
            groups = (neurons[::32] // 32).long()
            for part in ("blocks", "scales"):
                whole = before[f"{prefix}gate_up_proj_{part}"][entry["expert"]]
                down = before[f"{prefix}down_proj_{part}"][entry["expert"]]
                if options:
                    found = after[f"{prefix}gate_up_proj_{part}"][place]
                    found_down = after[f"{prefix}down_proj_{part}"][place]
                else:
                    single = f"{prefix}{place}.{{}}_proj.weight_{part}"
                    halves = [after[single.format(p)] for p in ("gate", "up")]
                    found = torch.stack(halves, 1).flatten(0, 1)
                    found_down = after[single.format("down")]
                assert torch.equal(found, whole[rows])
                assert torch.equal(found_down, down[:, groups])
    if options:
        assert_close(
            expert_trace.fettle_logits(build_dir, out, ids),
            transformers_logits(mxfp4_reference(out), ids),
        )


def test_trims_that_round_anew_are_written_plain(
    coded, fettle, build_dir, ids, tmp_path
):
    out = tmp_path / "out"
    expert_trace.run(
        fettle, "trim", coded, "--scores", coded.parent / "scores", "--out",
        out, "--keep", 0.6, "--scope", "expert",
    )
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config
    assert not stacks(out)
    assert_close(
        expert_trace.fettle_logits(build_dir, out, ids),
        transformers_logits(tiny_models.load(out), ids),
    )


LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "attn_sinks.weight": "self_attn.sinks",
    "ffn_gate_inp.weight": "mlp.router.weight",
    "ffn_gate_inp.bias": "mlp.router.bias",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
    "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
    **{
        f"attn_{short}.{kind}": f"self_attn.{name}_proj.{kind}"
        for short, name in
        [("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")]
        for kind in ("weight", "bias")
    },
}
TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def gguf_expected(name: str, model: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a tensor of the file is to hold."""
    if name in TOP:
        return model[TOP[name]]
    _, layer, part = name.split(".", 2)
    prefix = f"model.layers.{layer}."
    if part in LAYER:
        found = model[prefix + LAYER[part]]
        return found.transpose(1, 2) if part == "ffn_down_exps.weight" else found
    half = ("ffn_gate_exps", "ffn_up_exps").index(part.split(".")[0])
    bias = "_bias" if part.endswith("bias") else ""
    found = model[f"{prefix}mlp.experts.gate_up_proj{bias}"][..., half::2]
    return found if bias else found.transpose(1, 2)


@pytest.mark.parametrize("form", ["mxfp4", "bf16"])
def test_gguf_has_every_value(form, coded, fettle, tmp_path):
    source, kind = coded, "MXFP4"
    if form == "bf16":
        source, kind = quantized_models.export(fettle, coded, "hf-padded"), "BF16"
    out = tmp_path / "gguf"
    expert_trace.run(
        fettle, "export", source, "--out", out, "--format", "gguf", "--nearest"
    )
    reader = gguf.GGUFReader(out / "model.gguf")
    model = mxfp4_reference(coded).state_dict()
    found = 0
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        expected = gguf_expected(tensor.name, model)
        weight = torch.from_numpy(np.array(values, dtype=np.float32))
        assert torch.equal(weight.view(expected.shape), expected), tensor.name
        if "exps.weight" in tensor.name:
            assert tensor.tensor_type.name == kind
        if tensor.name.endswith(("bias", "sinks.weight")):
            assert tensor.tensor_type.name == "F32"
        found += expected.numel()
    assert found == sum(p.numel() for p in mxfp4_reference(coded).parameters())
    keys = {key: field.contents() for key, field in reader.fields.items()}
    assert keys["general.architecture"] == "gpt-oss"
    assert keys["gpt-oss.attention.sliding_window"] == 13
    assert keys["gpt-oss.expert_feed_forward_length"] == 64
    assert keys["gpt-oss.rope.scaling.type"] == "yarn"


def test_a_trim_for_gguf_needs_no_word_for_yarn(coded, fettle, tmp_path):
    out = tmp_path / "out"
    expert_trace.run(
        fettle, "trim", coded, "--scores", coded.parent / "scores", "--out",
        out, "--keep", 0.5, "--for", "gguf",
    )
    refused = subprocess.run(
        [fettle, "export", out, "--out", tmp_path / "no", "--format", "gguf"],
        capture_output=True, text=True,
    )
    assert refused.returncode != 0
    assert "'truncate' of rope scaling" in refused.stderr
    exported = tmp_path / "gguf"
    expert_trace.run(
        fettle, "export", out, "--out", exported, "--format", "gguf", "--nearest"
    )
    assert (exported / "model.gguf").exists()
