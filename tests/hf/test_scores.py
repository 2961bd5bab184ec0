# SPDX-License-Identifier: Apache-2.0
"""Every score against a slow, direct computation with autograd."""

from __future__ import annotations

import dataclasses
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

NEURON = [
    "mask_fisher",
    "weight_fisher",
    "grad_abs",
    "heapr",
    "camera",
    "obs",
    "wanda",
    "magnitude",
]
EXPERT = ["reap", "frequency", "gate_mass", "expert_fisher"]

Scores = dict[str, torch.Tensor]


def _per_neuron(gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """A neuron's values side by side: [E, 2I, H], [E, H, I] to [E, I, 3H];
    without a gate, [E, I, H], [E, H, I] to [E, I, 2H]."""
    into = gate_up.split(down.shape[2], dim=1)
    return torch.cat([*into, down.transpose(1, 2)], dim=2)


@dataclasses.dataclass
class Moments:
    """Of one layer: what is squared, summed and kept until the end."""

    activations: torch.Tensor  # [E, I, I], weighted
    gradients: torch.Tensor  # [E, H, H], of the weighted outputs
    layer_gradients: torch.Tensor  # [H, H], of the summed outputs
    largest: torch.Tensor  # [E, I], largest squared weighted activation
    tokens: int

    @staticmethod
    def of(module: torch.nn.Module) -> "Moments":
        e, h, i = module.down_proj.shape
        return Moments(
            torch.zeros(e, i, i, dtype=torch.double),
            torch.zeros(e, h, h, dtype=torch.double),
            torch.zeros(h, h, dtype=torch.double),
            torch.zeros(e, i),
            0,
        )


def _token_gradients(call: expert_trace.Call) -> torch.Tensor:
    """Every token's own gradient of each neuron's weights: [n, I, 3H or 2H]."""
    into = torch.einsum("nj,nh->njh", call.gate_up.grad, call.x)
    down = torch.einsum("nk,nh->nkh", call.h, call.y.grad)
    return torch.cat([*into.split(call.h.shape[1], dim=1), down], dim=2)


def _observe(
    scores: Scores, prefix: str, moments: Moments, call: expert_trace.Call
) -> None:
    e = call.expert
    weighted = call.h * call.weight[:, None]
    product = call.h * call.h.grad
    gradient = (call.y.grad / call.weight[:, None]).double()
    moments.activations[e] += weighted.double().T @ weighted.double()
    moments.gradients[e] += gradient.T @ gradient
    moments.largest[e] = torch.maximum(
        moments.largest[e], weighted.square().amax(0)
    )
    scores[f"{prefix}.neuron.mask_fisher"][e] += product.square().sum(0)
    scores[f"{prefix}.neuron.weight_fisher"][e] += (
        _token_gradients(call).square().sum((0, 2))
    )
    scores[f"{prefix}.mean_h"][e] += call.h.sum(0)
    scores[f"{prefix}.expert.reap"][e] += (
        call.weight * call.y.norm(dim=1)
    ).sum()
    scores[f"{prefix}.expert.gate_mass"][e] += call.weight.sum()
    scores[f"{prefix}.expert.frequency"][e] += len(call.weight)
    scores[f"{prefix}.expert.expert_fisher"][e] += (
        (call.y * call.y.grad).sum(1).square().sum()
    )


def _elimination(
    moment: torch.Tensor,
    w: torch.Tensor,
    metric: torch.Tensor,
    found: torch.Tensor,
) -> torch.Tensor:
    """Removes one neuron after the other, refitting from scratch each time.

    Goes in the order that `found` gives, and checks that none cheaper was
    left: of two that cost the same up to rounding, either may go first.
    moment: [I, I]; w: [I, H] output weights; metric: [H, H].
    """
    count = len(w)
    scores = torch.zeros(count, dtype=torch.double)
    kept = list(range(count))
    highest = 0.0
    for chosen in found.argsort().tolist():
        inverse = torch.linalg.inv(moment[kept][:, kept])
        gone = [k for k in range(count) if k not in kept]
        fitted = (
            w[kept] + inverse @ moment[kept][:, gone] @ w[gone]
            if gone
            else w[kept]
        )
        energy = ((fitted @ metric) * fitted).sum(1)
        costs = 0.5 * energy / inverse.diagonal()
        place = kept.index(chosen)
        assert costs[place] <= (1 + TOLERANCE) * costs.min()
        highest = max(highest, float(costs[place]))
        scores[kept.pop(place)] = highest
    return scores


def _obs(
    module: torch.nn.Module, moments: Moments, found: torch.Tensor
) -> torch.Tensor:
    activations = moments.activations
    ridge = 1e-3 * activations.diagonal(dim1=1, dim2=2).mean() + 1e-12
    eye = torch.eye(activations.shape[1], dtype=torch.double)
    metric = moments.layer_gradients / moments.tokens
    return torch.stack(
        [
            _elimination(
                activations[e] + ridge * eye,
                down.T,
                metric,
                found.view(len(activations), -1)[e],
            )
            for e, down in enumerate(module.down_proj.double())
        ]
    )


def _finish(
    scores: Scores,
    prefix: str,
    module: Any,
    moments: Moments,
    batches: int,
    found: Scores,
) -> None:
    obs = f"{prefix}.neuron.obs"
    tokens = scores[f"{prefix}.expert.frequency"].clamp(min=1)
    down_norms = module.down_proj.norm(dim=1)
    into = module.gate_up_proj.norm(dim=2).split(down_norms.shape[1], dim=1)
    squares = moments.activations.diagonal(dim1=1, dim2=2)
    down = module.down_proj.double()
    energy = torch.einsum("ehi,ehg,egi->ei", down, moments.gradients, down)
    scores[f"{prefix}.neuron.heapr"] = (
        squares * energy / tokens[:, None] ** 2
    ).float()
    scores[f"{prefix}.neuron.camera"] = down_norms.square() * (
        0.1 * squares.float() + 0.9 * moments.largest
    )
    scores[obs] = _obs(module, moments, found[obs]).float()
    scores[f"{prefix}.neuron.wanda"] = squares.sqrt().float() * down_norms
    scores[f"{prefix}.neuron.magnitude"] = torch.stack(into).prod(0) * down_norms
    scores[f"{prefix}.neuron.grad_abs"] /= batches
    scores[f"{prefix}.expert.reap"] /= tokens
    scores[f"{prefix}.mean_h"] /= tokens[:, None]


def direct_scores(
    model: torch.nn.Module, ids: torch.Tensor, batch: int, found: Scores
) -> Scores:
    """All scores by name, neurons as [E, I]; `batch` sequences a gradient.

    `found`: the scores under test, for what depends on their order.
    """
    traced = expert_trace.trace(model)
    scores: Scores = {}
    moments = {l: Moments.of(e.module) for l, e in traced.items()}
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
                    _observe(scores, prefix, moments[layer], call)
                for output in experts.outputs:
                    g = output.grad.double()
                    moments[layer].layer_gradients += g.T @ g
                    moments[layer].tokens += len(g)
                gradient = _per_neuron(*expert_trace.gradients(experts.module))
                scores[f"{prefix}.neuron.grad_abs"] += (
                    gradient.abs().mean(2) / loss_tokens
                )
            experts.calls.clear()
            experts.outputs.clear()
    with torch.no_grad():
        for layer, experts in traced.items():
            _finish(
                scores,
                f"layers.{layer}",
                experts.module,
                moments[layer],
                len(chunks),
                found,
            )
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
    [
        "qwen3",
        "qwen2",
        "mixtral",
        "olmoe",
        "deepseek_groups",
        "deepseek_v3",
        "qwen3_top1",
        "granite_shared",
        "granite_hybrid",
        "gemma",
        "gpt_oss",
        "qwen35",
        "lfm2",
        "nemotron",
    ],
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
    expected = direct_scores(tiny_models.load(folder), ids, batch, found)
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
