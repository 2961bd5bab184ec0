# SPDX-License-Identifier: Apache-2.0
"""A transformers model whose experts are plain loops that can be looked into.

Every layer's experts are computed one by one, in the open: what a score sums,
and what a trim leaves out, can then be written down directly.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
from typing import Any

import moe_parts
import safetensors.torch
import tokenizers
import torch

VOCAB = 97


@dataclasses.dataclass
class Call:
    """One expert's work on the tokens that chose it."""

    layer: int
    expert: int
    x: torch.Tensor  # [n, H]
    # [n, 2I], or [n, I] without a gate; its gradient is kept, as of the next two
    gate_up: torch.Tensor
    h: torch.Tensor  # [n, I]
    y: torch.Tensor  # [n, H], not weighted, without a cut's constant
    weight: torch.Tensor  # [n]


@dataclasses.dataclass
class Cut:
    """What a trim leaves of an expert."""

    kept: torch.Tensor  # [I] of 0 and 1
    constant: torch.Tensor  # [H]


class Interleaved:
    """gpt-oss's experts as other families have them: gate rows, then up rows,
    outputs by inputs. Gradients reach the parameters."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.stacked = module

    @staticmethod
    def _halves(stack: torch.Tensor) -> torch.Tensor:
        return torch.cat([stack[..., ::2], stack[..., 1::2]], dim=-1)

    @property
    def gate_up_proj(self) -> torch.Tensor:
        return self._halves(self.stacked.gate_up_proj).transpose(1, 2)

    @property
    def down_proj(self) -> torch.Tensor:
        return self.stacked.down_proj.transpose(1, 2)

    def gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        gate_up, down = self.stacked.gate_up_proj, self.stacked.down_proj
        return (
            self._halves(gate_up.grad).transpose(1, 2),
            down.grad.transpose(1, 2),
        )

    @property
    def gate_up_bias(self) -> torch.Tensor:
        return self._halves(self.stacked.gate_up_proj_bias)

    @property
    def down_bias(self) -> torch.Tensor:
        return self.stacked.down_proj_bias

    @staticmethod
    def activate(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate = gate.clamp(max=7.0)
        return gate * torch.sigmoid(1.702 * gate) * (up.clamp(-7.0, 7.0) + 1)


class Ungated:
    """Nemotron's experts, of which up is all that others have of gate and up."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.act_fn = module.act_fn
        self.gate_up_proj = module.up_proj
        self.down_proj = module.down_proj


class TracedExperts:
    """Takes the place of the forward pass of one layer's experts."""

    def __init__(self, layer: int, module: torch.nn.Module) -> None:
        self.layer = layer
        self.module = module
        if hasattr(module, "gate_up_proj_bias"):
            self.module = Interleaved(module)
        if not hasattr(module, "gate_up_proj"):
            self.module = Ungated(module)
        self.calls: list[Call] = []
        self.outputs: list[torch.Tensor] = []  # [N, H], gradients kept
        self.cuts: dict[int, Cut] = {}

    def __call__(
        self,
        hidden_states: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        result = torch.zeros_like(hidden_states)
        for expert in range(self.module.down_proj.shape[0]):
            token, place = torch.where(top_k_index == expert)
            if len(token) == 0:
                continue
            x = hidden_states[token]
            gate_up = x @ self.module.gate_up_proj[expert].T
            if isinstance(self.module, Interleaved):
                gate_up = gate_up + self.module.gate_up_bias[expert]
            if isinstance(self.module, Ungated):
                h = self.module.act_fn(gate_up)
            elif isinstance(self.module, Interleaved):
                h = self.module.activate(*gate_up.chunk(2, dim=1))
            else:
                gate, up = gate_up.chunk(2, dim=1)
                h = self.module.act_fn(gate) * up
            cut = self.cuts.get(expert)
            y = (h if cut is None else h * cut.kept) @ self.module.down_proj[
                expert
            ].T
            if isinstance(self.module, Interleaved):
                y = y + self.module.down_bias[expert]
            weight = top_k_weights[token, place]
            if h.requires_grad:
                for kept in (gate_up, h, y):
                    kept.retain_grad()
            self.calls.append(
                Call(self.layer, expert, x, gate_up, h, y, weight)
            )
            if cut is not None:
                y = y + cut.constant
            result = result.index_add(0, token, y * weight[:, None])
        if result.requires_grad:
            result.retain_grad()
            self.outputs.append(result)
        return result


def gradients(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of a layer's experts: [E, 2I, H] (without a gate [E, I, H]) and
    [E, H, I]."""
    if isinstance(module, Interleaved):
        return module.gradients()
    return module.gate_up_proj.grad, module.down_proj.grad


def trace(model: torch.nn.Module) -> dict[int, TracedExperts]:
    """Opens the experts of every sparse layer, by layer."""
    traced = {}
    for index, layer in enumerate(model.model.layers):
        block = moe_parts.block_of(layer)
        if block is None:
            continue
        experts = block.experts
        traced[index] = TracedExperts(index, experts)
        experts.forward = traced[index]
    return traced


def loss_sum(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Summed negative log-likelihood of [B, T] ids."""
    logits = model(input_ids=ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
    )


def write_tokenizer(folder: pathlib.Path) -> None:
    """A tokenizer that a model folder must have; the data here are ids."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: i for i, symbol in enumerate(alphabet[:VOCAB])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def weights_file(folder: pathlib.Path) -> pathlib.Path:
    """The one file of a model's weights: model*, or fettle* where only Fettle
    runs the model."""
    (found,) = folder.glob("*.safetensors")
    return found


def random_ids(count: int, length: int, seed: int = 3) -> torch.Tensor:
    """[count, length] token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (count, length), generator=generator)


def write_ids(path: pathlib.Path, ids: torch.Tensor) -> pathlib.Path:
    """A data file of one line a sequence."""
    path.write_text(
        "".join(json.dumps({"input_ids": row}) + "\n" for row in ids.tolist())
    )
    return path


def run(program: pathlib.Path, *arguments: Any) -> None:
    """Runs a fettle command."""
    subprocess.run(
        [str(program), *map(str, arguments), "--quiet"],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )


def probe(
    build_dir: pathlib.Path,
    command: str,
    model: pathlib.Path,
    ids: list[list[int]],
    device: str = "cpu",
    settings: dict[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """What fettle_probe's `command` writes, in an environment of `settings`."""
    sequences = model.with_name(f"{model.name}.ids.json")
    out = model.with_name(f"{model.name}.{command}.safetensors")
    sequences.write_text(json.dumps(ids))
    subprocess.run(
        [build_dir / "fettle_probe", command, model, sequences, out, device],
        check=True,
        env={**os.environ, **(settings or {})},
    )
    return safetensors.torch.load_file(out)


def fettle_logits(
    build_dir: pathlib.Path, model: pathlib.Path, ids: torch.Tensor
) -> torch.Tensor:
    """What Fettle computes: [B T, V], one sequence after the other."""
    return probe(build_dir, "logits", model, ids.tolist())["logits"]
