# SPDX-License-Identifier: Apache-2.0
"""Every score against a slow, direct computation with autograd."""

from __future__ import annotations

import pathlib
from typing import Any

import expert_trace
import pytest
import safetensors.torch
import tiny_models
import torch

# Both sides sum in fp32, in different orders; below the floor a score is
# rounding of terms that cancel.
TOLERANCE = 1e-3
FLOOR = 1e-6

NEURON = ["mask_fisher", "grad_abs", "wanda", "magnitude"]
EXPERT = ["reap", "frequency", "gate_mass"]

Scores = dict[str, torch.Tensor]


def _per_neuron(gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """A neuron's values side by side: [E, 2I, H], [E, H, I] to [E, I, 3H]."""
    gate, up = gate_up.chunk(2, dim=1)
    return torch.cat([gate, up, down.transpose(1, 2)], dim=2)


def _observe(scores: Scores, prefix: str, call: expert_trace.Call) -> None:
    e = call.expert
    weighted = call.h * call.weight[:, None]
    scores[f"{prefix}.neuron.mask_fisher"][e] += (
        (call.h * call.h.grad).square().sum(0)
    )
    scores[f"{prefix}.neuron.wanda"][e] += weighted.square().sum(0)
    scores[f"{prefix}.mean_h"][e] += call.h.sum(0)
    scores[f"{prefix}.expert.reap"][e] += (
        call.weight * call.y.norm(dim=1)
    ).sum()
    scores[f"{prefix}.expert.gate_mass"][e] += call.weight.sum()
    scores[f"{prefix}.expert.frequency"][e] += len(call.weight)


def _finish(scores: Scores, prefix: str, module: Any, batches: int) -> None:
    tokens = scores[f"{prefix}.expert.frequency"].clamp(min=1)
    down_norms = module.down_proj.norm(dim=1)
    gate, up = module.gate_up_proj.norm(dim=2).chunk(2, dim=1)
    wanda = scores[f"{prefix}.neuron.wanda"]
    scores[f"{prefix}.neuron.wanda"] = wanda.sqrt() * down_norms
    scores[f"{prefix}.neuron.magnitude"] = gate * up * down_norms
    scores[f"{prefix}.neuron.grad_abs"] /= batches
    scores[f"{prefix}.expert.reap"] /= tokens
    scores[f"{prefix}.mean_h"] /= tokens[:, None]


def direct_scores(
    model: torch.nn.Module, ids: torch.Tensor, batch: int
) -> Scores:
    """All scores by name, neurons as [E, I]; `batch` sequences a gradient."""
    traced = expert_trace.trace(model)
    scores: Scores = {}
    for layer, experts in traced.items():
        e, _, i = experts.module.down_proj.shape
        for name in NEURON:
            scores[f"layers.{layer}.neuron.{name}"] = torch.zeros(e, i)
        for name in EXPERT:
            scores[f"layers.{layer}.expert.{name}"] = torch.zeros(e)
        scores[f"layers.{layer}.mean_h"] = torch.zeros(e, i)
    chunks = ids.split(batch)
    for chunk in chunks:
        model.zero_grad()
        expert_trace.loss_sum(model, chunk).backward()
        loss_tokens = chunk.shape[0] * (chunk.shape[1] - 1)
        for layer, experts in traced.items():
            prefix = f"layers.{layer}"
            with torch.no_grad():
                for call in experts.calls:
                    _observe(scores, prefix, call)
                gradient = _per_neuron(
                    experts.module.gate_up_proj.grad,
                    experts.module.down_proj.grad,
                )
                scores[f"{prefix}.neuron.grad_abs"] += (
                    gradient.abs().mean(2) / loss_tokens
                )
            experts.calls.clear()
    with torch.no_grad():
        for layer, experts in traced.items():
            _finish(scores, f"layers.{layer}", experts.module, len(chunks))
    return scores


def assert_close(found: torch.Tensor, expected: torch.Tensor, name: str):
    expected = expected.flatten()
    assert found.shape == expected.shape, name
    counts = expected.abs() > FLOOR * expected.abs().max()
    assert counts.any(), name
    error = ((found - expected).abs() / expected.abs())[counts].max().item()
    assert error <= TOLERANCE, f"{name}: {error}"


@pytest.mark.parametrize("batch", [1, 12])
@pytest.mark.parametrize(
    "variant",
    ["qwen3", "qwen2", "mixtral", "olmoe", "deepseek_groups", "qwen3_top1"],
)
def test_scores_are_what_autograd_gives(
    variant: str, batch: int, fettle: pathlib.Path, tmp_path: pathlib.Path
):
    folder = tiny_models.make(variant, tmp_path)
    expert_trace.write_tokenizer(folder)
    ids = expert_trace.random_ids(12, 17)
    data = expert_trace.write_ids(tmp_path / "data.jsonl", ids)
    expert_trace.run(
        fettle,
        "analyze",
        folder,
        "--data",
        data,
        "--out",
        tmp_path / "scores",
        "--scores",
        ",".join(NEURON + EXPERT),
        "--tokens",
        0,
        "--batch-sequences",
        batch,
    )
    found = safetensors.torch.load_file(
        tmp_path / "scores" / "scores.safetensors"
    )
    expected = direct_scores(tiny_models.load(folder), ids, batch)
    for name, values in expected.items():
        if not name.endswith("mean_h"):
            assert_close(found[name], values, name)
            continue
        # A mean of both signs: compared to the layer's largest.
        error = (found[name] - values.flatten()).abs().max()
        assert error <= 1e-5 * values.abs().max(), name
        counts = expected[name.replace("mean_h", "expert.frequency")]
        tokens = found[name.replace("mean_h", "tokens")]
        assert torch.equal(tokens, counts.long()), name
