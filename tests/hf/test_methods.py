# SPDX-License-Identifier: Apache-2.0
"""Ten steps of esft, smt, usaf by blocks and router_kd equal PyTorch.

The program forms every gradient by autograd and updates, with AdamW written
out, the entries of parameters that the method trains. What the method leaves
in a merged model is compared with what the program leaves in its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import moe_parts
import pytest
import safetensors.torch
import test_tune
import tiny_models
import torch

STEPS = test_tune.STEPS
SEQ_LEN = test_tune.SEQ_LEN
SEQUENCES = test_tune.SEQUENCES
SCORE_SEQUENCES = 8
LR = 2e-3
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.999)
EPSILON = 1e-5  # what is all rounding hardly moves
FRAC = 0.1
BLOCK = (5, 7)  # divides no side
TOP = 12
KD = 0.75

Loss = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]


@dataclasses.dataclass
class Trained:
    """Entries of one parameter that are trained, and their moments."""

    parameter: torch.nn.Parameter
    mask: torch.Tensor
    by_expert: bool = False  # an expert that no token chose rests
    decays: bool = True

    def __post_init__(self) -> None:
        self.first = torch.zeros_like(self.parameter)
        self.second = torch.zeros_like(self.parameter)
        self.age = torch.zeros_like(self.parameter)

    def gradient(self) -> torch.Tensor:
        return self.parameter.grad * self.mask

    def step(self, rate: float, scale: float) -> None:
        gradient = self.gradient() * scale
        moved = self.mask
        if self.by_expert:
            chosen = self.parameter.grad.flatten(1).abs().amax(1) > 0
            moved = moved & chosen.view(-1, *[1] * (gradient.dim() - 1))
        self.age += moved
        first = self.first.lerp(gradient, 1 - BETAS[0])
        second = self.second * BETAS[1] + gradient.square() * (1 - BETAS[1])
        self.first = torch.where(moved, first, self.first)
        self.second = torch.where(moved, second, self.second)
        age = self.age.clamp_min(1)
        change = (self.first / (1 - BETAS[0] ** age)) / (
            (self.second / (1 - BETAS[1] ** age)).sqrt() + EPSILON
        )
        values = self.parameter.data
        decay = WEIGHT_DECAY if self.decays else 0.0
        values = values * (1 - rate * decay) - rate * change
        self.parameter.data = torch.where(moved, values, self.parameter.data)


def _rate(step: int) -> float:
    return test_tune._rate(LR, step, STEPS)


def _train(
    model: torch.nn.Module,
    ids: torch.Tensor,
    trained: list[Trained],
    loss_sum: Loss,
    groups: list[list[Trained]] | None = None,
    norms: list[float] | None = None,
) -> list[float]:
    """Losses of the steps; clips over all, or over each of `groups`.

    Adds the norms of the whole gradient to `norms`.
    """
    losses = []
    for step in range(STEPS):
        batch = ids[step * SEQUENCES : (step + 1) * SEQUENCES]
        model.zero_grad()
        loss = loss_sum(model, batch) / (SEQUENCES * (SEQ_LEN - 1))
        loss.backward()
        losses.append(loss.item())
        if norms is not None:
            whole = sum(one.gradient().square().sum() for one in trained)
            norms.append(math.sqrt(whole))
        for group in groups or [trained]:
            squares = sum(one.gradient().square().sum() for one in group)
            scale = min(1.0, test_tune.CLIP / (math.sqrt(squares) + 1e-6))
            for one in group:
                one.step(_rate(step), scale)
    return losses


class Case:
    """A tiny model, its data, and both sides trained on it."""

    def __init__(
        self, fettle: pathlib.Path, folder: pathlib.Path, family: str
    ) -> None:
        torch.manual_seed(5)
        self.fettle = fettle
        self.folder = folder
        self.base = tiny_models.make(family, folder)
        test_tune._write_tokenizer(self.base)
        length = STEPS * SEQUENCES * (SEQ_LEN - 1) + 1
        document = torch.randint(test_tune.VOCAB, (length,))
        test_tune._write_ids(folder / "train.jsonl", [document.tolist()])
        self.ids = document.unfold(0, SEQ_LEN, SEQ_LEN - 1)
        self.model = tiny_models.load(self.base)
        self.start = {k: v.clone() for k, v in self.model.state_dict().items()}

    def tune(self, *arguments: Any) -> list[float]:
        # fmt: off
        test_tune._fettle(
            self.fettle, "tune", self.base,
            "--data", self.folder / "train.jsonl",
            "--out", self.folder / "tuned",
            "--merge", self.folder / "merged", "--merge-dtype", "float32",
            "--steps", STEPS,
            "--tokens-per-step", SEQUENCES * SEQ_LEN,
            "--seq-len", SEQ_LEN,
            "--lr", LR,
            "--warmup-steps", test_tune.WARMUP,
            "--min-lr-ratio", test_tune.MIN_LR_RATIO,
            "--weight-decay", WEIGHT_DECAY,
            "--clip-norm", test_tune.CLIP,
            "--epsilon", EPSILON,
            *arguments,
        )
        # fmt: on
        return self.metric("loss")

    def metric(self, name: str) -> list[float]:
        text = (self.folder / "tuned" / "metrics.jsonl").read_text()
        return [json.loads(line)[name] for line in text.splitlines()]

    def check(self, found: list[float], expected: list[float]) -> None:
        assert found == pytest.approx(expected, rel=1e-4)
        merged = tiny_models.load(self.folder / "merged").state_dict()
        moved = 0
        for name, value in self.model.state_dict().items():
            change = (value - self.start[name]).norm()
            moved += change > 0
            # Ten updates by signs of sums that differ in the last bits. A bias
            # of keys adds nearly the same to all scores of a query: what is
            # left of its gradient is mostly rounding.
            bound = 2e-2 if name.endswith("k_proj.bias") else 2e-3
            assert (merged[name] - value).norm() <= bound * change, name
        assert moved > 0

    def sparse_layers(self) -> list[torch.nn.Module]:
        layers = self.model.model.layers
        return [layer for layer in layers if moe_parts.block_of(layer)]


FAMILIES = ["qwen3", "qwen2", "mixtral", "olmoe", "deepseek"]


@pytest.mark.parametrize("family", [*FAMILIES, "gpt_oss", "nemotron"])
def test_esft(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str
) -> None:
    case = Case(fettle, tmp_path, family)
    found = case.tune(
        "--method", "esft",
        "--esft-share", 0.4,
        "--score-sequences", SCORE_SEQUENCES,
    )  # fmt: skip
    chosen = _esft_choice(case, family)
    trained = []
    for layer, experts in zip(case.sparse_layers(), chosen, strict=True):
        for parameter in _parameters_of(layer):
            mask = torch.zeros_like(parameter, dtype=torch.bool)
            mask[experts] = True
            trained.append(Trained(parameter, mask, by_expert=True))
        if (bias := _input_bias(layer)) is not None:
            mask = torch.zeros_like(bias, dtype=torch.bool)
            mask[experts] = True
            trained.append(Trained(bias, mask, by_expert=True, decays=False))
    case.check(
        found, _train(case.model, case.ids, trained, test_tune._loss_sum)
    )


def _input_bias(layer: torch.nn.Module) -> torch.nn.Parameter | None:
    """Of gate and up. Fettle has those of down in a tensor of the layer."""
    experts = moe_parts.block_of(layer).experts
    return getattr(experts, "gate_up_proj_bias", None)


def _esft_choice(case: Case, family: str) -> list[list[int]]:
    """The experts of each layer, by counting what the router chose."""
    top_k = case.model.config.num_experts_per_tok
    counts: dict[int, torch.Tensor] = {}

    def watch(place: int) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            indices = output[2] if isinstance(output, tuple) else output
            assert indices.shape[-1] == top_k
            block = moe_parts.block_of(case.sparse_layers()[place])
            number = block.experts.down_proj.shape[0]
            counts[place] = torch.bincount(indices.flatten(), minlength=number)

        return hook

    handles = []
    for place, layer in enumerate(case.sparse_layers()):
        if family == "deepseek":
            experts = layer.mlp.experts
            handles.append(
                experts.register_forward_pre_hook(
                    lambda module, inputs, watch=watch(place): watch(
                        module, None, inputs[1]
                    )
                )
            )
        else:
            block = moe_parts.block_of(layer)
            router = getattr(block, "gate", None) or block.router
            handles.append(router.register_forward_hook(watch(place)))
    with torch.no_grad():
        case.model(input_ids=case.ids[:SCORE_SEQUENCES])
    for handle in handles:
        handle.remove()
    chosen = []
    for place in sorted(counts):
        shares = counts[place].double() / counts[place].sum()
        order = shares.sort(descending=True, stable=True).indices
        held = shares[order].cumsum(0) - shares[order]
        chosen.append(order[held < 0.4 * (1 - 1e-12)].sort().values.tolist())
    return chosen


def _blocks(matrix: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """[..., R, C] as [..., down, r, across, c], filled up with zeros."""
    rows, cols = matrix.shape[-2:]
    down, across = -(-rows // block[0]), -(-cols // block[1])
    padded = torch.nn.functional.pad(
        matrix, (0, across * block[1] - cols, 0, down * block[0] - rows)
    )
    return padded.unflatten(-1, (across, block[1])).unflatten(
        -3, (down, block[0])
    )


def _spread(
    chosen: torch.Tensor, like: torch.Tensor, block: tuple[int, int]
) -> torch.Tensor:
    """[..., down, across] as a mask of the matrix."""
    wide = chosen.repeat_interleave(block[0], -2)
    wide = wide.repeat_interleave(block[1], -1)
    return wide[..., : like.shape[-2], : like.shape[-1]]


def _parts(parameter: torch.nn.Parameter, matrix: torch.Tensor) -> Any:
    """Matrices blocked by themselves: gate and up lie in one parameter."""
    fused = parameter.dim() == 3 and parameter.fused
    return matrix.chunk(2, dim=1) if fused else [matrix]


def _score(
    parameter: torch.nn.Parameter, matrix: torch.Tensor, block: tuple[int, int]
) -> list[torch.Tensor]:
    """Sums of the matrix over the parameter's blocks."""
    return [
        _blocks(part, block).sum((-3, -1)) for part in _parts(parameter, matrix)
    ]


def _choose_blocks(
    parameters: list[torch.nn.Parameter],
    scores: list[list[torch.Tensor]],
    block: tuple[int, int],
    run: int = 0,
) -> list[Trained]:
    """The best FRAC of all blocks, or of each `run` of parameters."""
    trained = []
    run = run or len(parameters)
    for first in range(0, len(parameters), run):
        group = range(first, min(first + run, len(parameters)))
        every = torch.cat([s.flatten() for i in group for s in scores[i]])
        count = max(1, math.floor(FRAC * len(every) + 0.5))
        least = every.topk(count).values[-1]
        for i in group:
            masks = [
                _spread(score >= least, part, block)
                for score, part in zip(
                    scores[i],
                    _parts(parameters[i], parameters[i]),
                    strict=True,
                )
            ]
            mask = torch.cat(masks, -2)
            trained.append(Trained(parameters[i], mask))
    return trained


@pytest.mark.parametrize("family", ["qwen3", "mixtral", "deepseek", "afmoe", "nemotron"])
def test_smt(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str
) -> None:
    case = Case(fettle, tmp_path, family)
    found = case.tune(
        "--method", "smt",
        "--block", f"{BLOCK[0]}x{BLOCK[1]}",
        "--frac", FRAC,
        "--attention-frac", FRAC,
        "--score-sequences", SCORE_SEQUENCES,
    )  # fmt: skip
    model = case.model
    test_tune._loss_sum(model, case.ids[:SCORE_SEQUENCES]).backward()
    experts = _expert_parameters(case)
    attention = [
        parameter
        for layer in model.model.layers
        for name, parameter in _mixer(layer).named_parameters()
        if parameter.dim() == 2
    ]

    trained = []
    for kind in (experts, attention):
        scores = [_score(p, p.grad.abs(), BLOCK) for p in kind]
        trained += _choose_blocks(kind, scores, BLOCK)
    case.check(found, _train(model, case.ids, trained, test_tune._loss_sum))


def _mixer(layer: torch.nn.Module) -> torch.nn.Module:
    """Attention or what stands in its place; nothing in layers of an MLP."""
    for name in ("self_attn", "conv", "mixer"):
        if hasattr(layer, name):
            mixer = getattr(layer, name)
    is_mlp = hasattr(mixer, "up_proj") or hasattr(mixer, "experts")
    return torch.nn.Module() if is_mlp else mixer


def _expert_parameters(case: Case) -> list[torch.nn.Parameter]:
    parameters = []
    for layer in case.sparse_layers():
        parameters += _parameters_of(layer)
    return parameters


def _parameters_of(layer: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Stacks of gate and up, or of up alone, and of down."""
    experts = moe_parts.block_of(layer).experts
    parameters = []
    for name in ["gate_up_proj", "up_proj", "down_proj"]:
        if hasattr(experts, name):
            parameters.append(getattr(experts, name))
            parameters[-1].fused = name == "gate_up_proj"
    return parameters


@pytest.mark.parametrize("unit", ["block", "element"])
def test_usaf_by_other_units(
    fettle: pathlib.Path, tmp_path: pathlib.Path, unit: str
) -> None:
    case = Case(fettle, tmp_path, "qwen3")
    block = (4, 3) if unit == "block" else (1, 1)
    found = case.tune(
        "--method", "usaf",
        "--router", "frozen",
        "--unit", unit,
        *(["--block", "4x3"] if unit == "block" else []),
        "--scope", "layer",
        "--frac", FRAC,
        "--score-sequences", SCORE_SEQUENCES,
    )  # fmt: skip
    parameters = _expert_parameters(case)
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    for sequence in case.ids[:SCORE_SEQUENCES]:
        case.model.zero_grad()
        test_tune._loss_sum(case.model, sequence[None]).backward()
        for sum_of, parameter in zip(squares, parameters, strict=True):
            sum_of += parameter.grad.square()
    scores = [
        _score(parameter, sum_of, block)
        for parameter, sum_of in zip(parameters, squares, strict=True)
    ]
    trained = _choose_blocks(parameters, scores, block, 2)
    case.check(
        found, _train(case.model, case.ids, trained, test_tune._loss_sum)
    )


def _disturb(path: pathlib.Path) -> None:
    """Makes another model of it: every family's tiny model is always the same."""
    tensors = safetensors.torch.load_file(path)
    for name, value in tensors.items():
        noise = torch.randn(value.shape) * value.float().std(correction=0)
        tensors[name] = (value.float() + 0.2 * noise).to(value.dtype)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("family", ["qwen3", "deepseek", "gemma"])
def test_router_kd(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str
) -> None:
    case = Case(fettle, tmp_path, family)
    (tmp_path / "other").mkdir()
    other = tiny_models.make(family, tmp_path / "other")
    test_tune._write_tokenizer(other)
    _disturb(other / "model.safetensors")
    teacher = tiny_models.load(other)
    found = case.tune(
        "--method", "router_kd",
        "--teacher", other,
        "--kd-weight", KD,
        "--kd-top", TOP,
        "--router-lr", LR,
    )  # fmt: skip

    def loss_sum(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = teacher(input_ids=ids).logits[:, :-1].float()
            taught, top = logits.log_softmax(-1).topk(TOP)
            q = taught.exp()
            q_rest = 1 - q.sum(-1)
        log_p = model(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
        log_top = log_p.gather(-1, top)
        p_rest = 1 - log_top.exp().sum(-1)
        kl = (q * (taught - log_top)).sum() + (
            q_rest * (q_rest.log() - p_rest.log())
        ).sum()
        nll = -log_p.gather(-1, ids[:, 1:, None]).sum()
        return KD * kl + (1 - KD) * nll

    trained = [
        Trained(router, torch.ones_like(router, dtype=torch.bool))
        for router in map(moe_parts.router_of, case.sparse_layers())
    ]
    case.check(found, _train(case.model, case.ids, trained, loss_sum))
