# SPDX-License-Identifier: Apache-2.0
"""The quant stage against GPTQ written out in PyTorch, and its models."""

from __future__ import annotations

import pathlib

import expert_trace
import packed_weights
import pytest
import tiny_models
import torch
from test_export import assert_close, export, transformers_logits

DAMPING = 0.01


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(40, 31)


def quantized(
    fettle: pathlib.Path,
    folder: pathlib.Path,
    ids: torch.Tensor,
    *options,
    name: str = "quantized",
) -> pathlib.Path:
    """Quantizes the model in `folder` on `ids`."""
    expert_trace.write_tokenizer(folder)
    data = expert_trace.write_ids(folder.parent / "data.jsonl", ids)
    out = folder.parent / name
    expert_trace.run(
        fettle, "quant", folder, "--data", data, "--out", out,
        "--tokens", 0, *options,
    )
    return out


def gptq(
    w: torch.Tensor, moments: torch.Tensor, packed: packed_weights.Packed
) -> torch.Tensor:
    """Codes by the steps of the paper, in fp64, on the scales that were found."""
    n = w.shape[1]
    damped = moments + DAMPING * moments.diagonal().mean() * torch.eye(n).double()
    scale, zero = packed.spread(packed.scales), packed.spread(packed.zeros)
    top = 2**packed.bits - 1
    rest = w.clone()
    codes = torch.empty_like(packed.codes)
    for j in range(n):
        inverse = torch.linalg.inv(damped[j:, j:])
        code = (torch.round(rest[:, j] / scale[:, j]) + zero[:, j]).clamp(0, top)
        error = (rest[:, j] - (code - zero[:, j]) * scale[:, j]) / inverse[0, 0]
        rest[:, j:] -= torch.outer(error, inverse[0])
        codes[:, j] = code.long()
    return codes


def first_experts(folder, variant, names, ids):
    """Of the first layer with experts: names of their matrices as stored, the
    weights, and the moments of what enters them; deeper layers see what the
    quantized ones before them make."""
    model = tiny_models.load(folder)
    traced = expert_trace.trace(model)
    with torch.no_grad():
        expert_trace.loss_sum(model, ids)
    layer, experts = min(traced.items())
    for call in experts.calls:
        prefix = next(
            n for n in names
            if f"layers.{layer}." in n and f"experts.{call.expert}." in n
        ).rsplit(".", 2)[0]
        p = call.weight.double()[:, None]
        x, h = call.x.double() * p, call.h.double() * p
        gate, up = experts.module.gate_up_proj[call.expert].double().chunk(2)
        down = experts.module.down_proj[call.expert].double()
        parts = (
            ("w1", "w3", "w2")
            if variant == "mixtral"
            else ("gate_proj", "up_proj", "down_proj")
        )
        for name, w, inputs in zip(parts, (gate, up, down), (x, x, h)):
            yield f"{prefix}.{name}.weight", w, inputs.T @ inputs


ONLY_EXPERTS = (
    "--group", 16, "--attention", "keep", "--shared", "keep", "--dense", "keep",
    "--damping", DAMPING, "--starved", "rtn",
)


@pytest.mark.parametrize("bits", ["int4", "int2"])
@pytest.mark.parametrize("variant", ["qwen3", "qwen2", "mixtral", "deepseek"])
def test_experts_are_quantized_by_gptq(variant, bits, fettle, ids, tmp_path):
    folder = tiny_models.make(variant, tmp_path)
    out = quantized(
        fettle, folder, ids, "--bits", bits, "--refine", 0, *ONLY_EXPERTS
    )
    weights = packed_weights.load(out)
    compared = wrong = 0
    for name, w, moments in first_experts(folder, variant, weights, ids):
        expected = gptq(w, moments, weights[name])
        wrong += int((weights[name].codes != expected).sum())
        compared += expected.numel()
    # Where a value falls between two levels, rounding decides, and what follows
    # in its row with it.
    assert compared > 5000
    assert wrong <= 0.01 * compared


@pytest.mark.parametrize("bits", ["int3", "ternary"])
@pytest.mark.parametrize("variant", ["qwen3", "mixtral", "deepseek"])
def test_refined_codes_lose_less(variant, bits, fettle, ids, tmp_path):
    folder = tiny_models.make(variant, tmp_path)
    plain, refined = (
        packed_weights.load(quantized(
            fettle, folder, ids, "--bits", bits, "--refine", passes,
            "--zeros", "yes", *ONLY_EXPERTS, name=f"refined-{passes}",
        ))
        for passes in (0, 3)
    )
    losses = []
    for name, w, moments in first_experts(folder, variant, plain, ids):
        moments.diagonal().add_(DAMPING * moments.diagonal().mean())

        def loss(weights):
            d = w - weights[name].values()
            return ((d @ moments) * d).sum().item()

        losses.append((loss(plain), loss(refined)))
        assert losses[-1][1] <= losses[-1][0] * (1 + 1e-4), name
    before, after = map(sum, zip(*losses))
    assert after < 0.95 * before


@pytest.mark.parametrize("bits", ["int8", "int4", "int3", "int2", "ternary"])
@pytest.mark.parametrize("variant", ["qwen3", "deepseek"])
def test_packed_weights_are_what_their_bytes_say(
    variant, bits, fettle, ids, tmp_path
):
    folder = tiny_models.make(variant, tmp_path)
    out = quantized(fettle, folder, ids, "--bits", bits, "--group", 20)
    exported = packed_weights.load(export(fettle, out, "--format", "hf"))
    for name, weight in packed_weights.load(out).items():
        if isinstance(weight, packed_weights.Packed):
            assert torch.equal(weight.values().float(), exported[name]), name
        else:
            assert torch.equal(weight, exported[name]), name


@pytest.mark.parametrize(
    "variant",
    [
        "qwen3",
        "qwen2",
        "mixtral",
        "olmoe",
        "deepseek",
        "deepseek_v3",
        "ernie",
        "granite_shared",
        "gemma",
        "gpt_oss",
        "lfm2",
        "qwen_next",
        "qwen35",
        "granite_hybrid",
        "nemotron",
    ],
)
def test_a_quantized_model_computes_with_its_values(
    variant, fettle, build_dir, ids, tmp_path
):
    folder = tiny_models.make(variant, tmp_path)
    out = quantized(
        fettle, folder, ids, "--bits", "int4", "--down", "int8",
        "--embeddings", "int8", "--group", 32, "--zeros", "yes",
    )
    exported = export(fettle, out, "--format", "hf")
    assert_close(
        transformers_logits(tiny_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, out, ids),
    )


def test_transformers_refuses_packed_weights(fettle, ids, tmp_path):
    folder = tiny_models.make("qwen3", tmp_path)
    out = quantized(fettle, folder, ids)
    with pytest.raises(OSError, match="no file named model.safetensors"):
        tiny_models.load(out)
