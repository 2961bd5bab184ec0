# SPDX-License-Identifier: Apache-2.0
"""Routers with a bias and condensers for transformers' Qwen3-MoE and Mixtral.

Written from ExpertCondenser (arXiv 2604.23036): p = softmax(z + b) both chooses
and weighs, condensers are always among the K experts, each counted once.
"""

from __future__ import annotations

import types

import torch


def route(
    gate: torch.nn.Module,
    x: torch.Tensor,
    *,
    top_k: int,
    renormalize: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, mixing weights and experts; p's sums per expert in gate.used."""
    logits = torch.nn.functional.linear(x.flatten(0, -2), gate.weight)
    logits = logits + gate.bias
    probs = logits.softmax(-1)
    gate.used = probs.detach().double().sum(0)
    # A condenser outranks every probability.
    rank = probs.detach().clone()
    rank[:, gate.condensers] = 2.0
    chosen = rank.topk(top_k, -1).indices
    weights = probs.gather(1, chosen)
    if renormalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return logits, weights, chosen


def install(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Gives every router of `model` a bias of 0 and no condensers."""
    config = model.config
    gates = []
    for layer in model.model.layers:
        if not hasattr(layer.mlp, "gate"):
            continue
        gate = layer.mlp.gate
        gate.bias = torch.zeros(gate.weight.shape[0])
        gate.mass = torch.zeros(gate.weight.shape[0], dtype=torch.float64)
        gate.condensers = []

        def forward(self: torch.nn.Module, x: torch.Tensor):
            return route(
                self,
                x,
                top_k=config.num_experts_per_tok,
                renormalize=getattr(config, "norm_topk_prob", True),
            )

        gate.forward = types.MethodType(forward, gate)
        gates.append(gate)
    return gates


def update(gate: torch.nn.Module, rate: float) -> None:
    """After a step's forward pass."""
    gate.bias = gate.bias + rate * (gate.used - gate.used.mean()).sign().float()
    gate.mass += gate.used


def choose(gate: torch.nn.Module, count: int) -> None:
    """The lowest biases; of equal ones those with less mass."""
    order = sorted(
        range(len(gate.bias)),
        key=lambda e: (gate.bias[e].item(), gate.mass[e].item()),
    )
    gate.condensers = sorted(order[:count])
