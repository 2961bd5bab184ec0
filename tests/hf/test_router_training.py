# SPDX-License-Identifier: Apache-2.0
"""Ten steps of routers by gumbel and densemixer equal PyTorch.

The program computes every expert for every token, mixes them by a routing of
its own, and leaves all gradients to autograd. Gumbel noise is drawn from the
generator of the paper that Fettle names, written anew.
"""

from __future__ import annotations

import functools
import math
import pathlib
from typing import Any

import pytest
import test_methods
import test_tune
import torch

NOISE = 0.8
SEED = 1
WORD = 0xFFFFFFFF


def _philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10. Salmon et al., "Parallel random numbers", SC 2011."""
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (b >> 32) ^ counter[1] ^ key[0],
            b & WORD,
            (a >> 32) ^ counter[3] ^ key[1],
            a & WORD,
        ]
        key = [(key[0] + 0x9E3779B9) & WORD, (key[1] + 0xBB67AE85) & WORD]
    return counter


def test_philox_known_answer() -> None:
    """From the paper's own implementation (Random123, kat_vectors)."""
    zeros = _philox([0] * 4, [0] * 2)
    assert zeros == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = _philox([WORD] * 4, [WORD] * 2)
    assert ones == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@functools.cache
def _gumbel(step: int, layer: int, count: int) -> torch.Tensor:
    """The first `count` draws of a layer's stream in a step."""
    stream = (step << 20) + layer
    draws = []
    for block in range((count + 1) // 2):
        counter = [block, 0, stream & WORD, stream >> 32]
        words = _philox(counter, [SEED, 0])
        for low, high in (words[:2], words[2:]):
            uniform = ((low | high << 32) >> 11) * 2.0**-53
            draws.append(-math.log(-math.log(max(uniform, 2.0**-53))))
    return torch.tensor(draws[:count])


class Block:
    """A layer's experts and router in place of the model's own forward."""

    def __init__(self, mlp: Any, layer: int, config: Any, router: str) -> None:
        self.mlp = mlp
        self.layer = layer
        self.router = router
        self.step = 0
        self.top_k = config.num_experts_per_tok
        self.scale = getattr(config, "routed_scaling_factor", 1.0)
        self.normalized = config.model_type == "mixtral" or (
            config.model_type != "deepseek_v2" and config.norm_topk_prob
        )
        mlp.forward = self.forward

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """What every expert says: [E, N, H]."""
        experts = self.mlp.experts
        both = torch.einsum("nh,eih->eni", x, experts.gate_up_proj)
        gate, up = both.chunk(2, dim=-1)
        hidden = torch.nn.functional.silu(gate) * up
        return torch.einsum("eni,ehi->enh", hidden, experts.down_proj)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        logits = x @ self.mlp.gate.weight.t()
        if self.router != "gumbel":
            return logits
        fall = 0.5 * (1 + math.cos(math.pi * self.step / test_methods.STEPS))
        noise = _gumbel(self.step, self.layer, logits.numel())
        return logits + NOISE * fall * noise.view_as(logits)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        x = hidden.flatten(0, -2)
        probs = self.logits(x).softmax(-1)
        chosen = torch.zeros_like(probs, dtype=torch.bool).scatter(
            1, probs.topk(self.top_k).indices, True
        )
        held = (probs * chosen).sum(-1, keepdim=True)
        outputs = self.outputs(x)
        weights = probs * chosen * self.scale
        if self.normalized:
            weights = weights / held
        y = torch.einsum("ne,enh->nh", weights, outputs)
        if self.router == "densemixer":
            # y of few, with the gradient of the mixture of all.
            others = probs * ~chosen * self.scale
            if self.normalized:
                others = others / held.detach()
            rest = torch.einsum("ne,enh->nh", others, outputs.detach())
            y = y + rest - rest.detach()
        return (y + self.shared(x)).view_as(hidden)

    def shared(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self.mlp, "shared_expert"):
            gate = self.mlp.shared_expert_gate(x).sigmoid()
            return gate * self.mlp.shared_expert(x)
        if hasattr(self.mlp, "shared_experts"):
            return self.mlp.shared_experts(x)
        return torch.zeros_like(x)


def _gradient(
    case: test_methods.Case, blocks: list[Block], router: str
) -> torch.Tensor:
    """Of the routers by a few sequences."""
    case.model.zero_grad()
    for block in blocks:
        block.router = router
    test_tune._loss_sum(case.model, case.ids[:4]).backward()
    return torch.cat([block.mlp.gate.weight.grad.flatten() for block in blocks])


@pytest.mark.parametrize("router", ["gumbel", "densemixer"])
@pytest.mark.parametrize("family", test_methods.FAMILIES)
def test_routers(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str, router: str
) -> None:
    case = test_methods.Case(fettle, tmp_path, family)
    usual = test_tune._loss_sum(case.model, case.ids[:4])
    blocks = [
        Block(layer.mlp, place, case.model.config, "topk")
        for place, layer in enumerate(case.model.model.layers)
        if hasattr(layer.mlp, "experts")
    ]
    # The blocks written out are the model's own.
    written = test_tune._loss_sum(case.model, case.ids[:4])
    assert written.item() == pytest.approx(usual.item(), rel=1e-6)
    # What is trained by is not the gradient of the routers in use.
    plain = _gradient(case, blocks, "topk")
    other = _gradient(case, blocks, router)
    assert (other - plain).norm() > 0.02 * plain.norm()

    noise = ["--gumbel-noise", NOISE] if router == "gumbel" else []
    found = case.tune(
        "--method", "router",
        "--router", router,
        *noise,
        "--router-lr", test_methods.LR,
    )  # fmt: skip
    trained = [
        test_methods.Trained(
            block.mlp.gate.weight,
            torch.ones_like(block.mlp.gate.weight, dtype=torch.bool),
        )
        for block in blocks
    ]
    norms: list[float] = []

    def loss_sum(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        for block in blocks:
            block.step = len(norms)
        return test_tune._loss_sum(model, ids)

    expected = test_methods._train(
        case.model, case.ids, trained, loss_sum, norms=norms
    )
    case.check(found, expected)
    assert case.metric("grad_norm") == pytest.approx(norms, rel=1e-3)
