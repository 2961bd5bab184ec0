# SPDX-License-Identifier: Apache-2.0
"""Ten steps of tuning equal a PyTorch program; then merge, reload, same loss.

The program chooses neurons by the gradients of single sequences, keeps the
chosen rows as parameters of torch.optim.AdamW, and lets autograd form every
gradient in full.
"""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
from typing import Any

import moe_parts
import pytest
import safetensors.torch
import tiny_models
import tokenizers
import torch

STEPS = 10
SEQ_LEN = 12
SEQUENCES = 4  # a step
SCORE_SEQUENCES = 32
FRAC = 0.1
LR = 2e-3
ROUTER_LR = 1e-3
WARMUP = 3
ROUTER_WARMUP = 4
MIN_LR_RATIO = 0.1
WEIGHT_DECAY = 0.05
CLIP = 0.7
VOCAB = 97


def _fettle(program: pathlib.Path, *arguments: Any) -> None:
    subprocess.run(
        [str(program), *map(str, arguments), "--quiet"],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )


def _write_tokenizer(folder: pathlib.Path) -> None:
    """A tokenizer that a model folder must have; the data here are ids."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: i for i, symbol in enumerate(alphabet[:VOCAB])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def _write_ids(path: pathlib.Path, lines: list[list[int]]) -> None:
    path.write_text("".join(json.dumps({"input_ids": x}) + "\n" for x in lines))


def _loss_sum(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Summed negative log-likelihood of [B, T] ids."""
    logits = model(input_ids=ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum"
    )


def _mean_loss(model: torch.nn.Module, ids: torch.Tensor) -> float:
    return _loss_sum(model, ids).item() / (ids.shape[0] * (ids.shape[1] - 1))


def _held_out(line: dict[str, Any]) -> float:
    """The one file's loss in a line of the metrics."""
    (scores,) = line["eval"].values()
    return scores["nll"]


class Layer:
    """One layer's experts: which neurons are trained, and as what."""

    def __init__(self, layer: torch.nn.Module) -> None:
        experts = moe_parts.block_of(layer).experts
        self.gate_up: torch.nn.Parameter = getattr(
            experts, "gate_up_proj", getattr(experts, "up_proj", None)
        )
        self.down: torch.nn.Parameter = experts.down_proj
        self.router: torch.nn.Parameter = moe_parts.router_of(layer)
        self.width = self.down.shape[2]
        self.score = torch.zeros(self.down.shape[0] * self.width)

    def rows(self, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        """All neurons of [E, 2I, H] and [E, H, I] as [3, E I, H]; without a
        gate, of [E, I, H] and [E, H, I] as [2, E I, H]."""
        planes = [*gate_up.split(self.width, dim=1), down.transpose(1, 2)]
        return torch.stack([plane.flatten(0, 1) for plane in planes])

    def gradient(self) -> torch.Tensor:
        return self.rows(self.gate_up.grad, self.down.grad)

    def choose(self, index: torch.Tensor) -> None:
        self.index = index
        values = self.rows(self.gate_up.data, self.down.data)
        self.values = torch.nn.Parameter(values[:, index].clone())

    def write_back(self) -> None:
        expert, neuron = self.index // self.width, self.index % self.width
        *into, down = self.values.data
        for place, plane in enumerate(into):
            self.gate_up.data[expert, place * self.width + neuron] = plane
        self.down.data[expert, :, neuron] = down


def _best(scores: torch.Tensor) -> torch.Tensor:
    count = math.floor(FRAC * len(scores) + 0.5)
    return scores.topk(count).indices.sort().values


def _choose(
    model: torch.nn.Module, layers: list[Layer], ids: torch.Tensor, scope: str
) -> None:
    for sequence in ids[:SCORE_SEQUENCES]:
        model.zero_grad()
        _loss_sum(model, sequence[None]).backward()
        for layer in layers:
            layer.score += layer.gradient().square().sum(dim=(0, 2))
    if scope == "layer":
        for layer in layers:
            layer.choose(_best(layer.score))
        return
    chosen = _best(torch.cat([layer.score for layer in layers]))
    start = 0
    for layer in layers:
        end = start + len(layer.score)
        layer.choose(chosen[(chosen >= start) & (chosen < end)] - start)
        start = end


def _rate(peak: float, step: int, steps: int) -> float:
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    cosine = math.cos(math.pi * (step - WARMUP) / (steps - WARMUP))
    floor = peak * MIN_LR_RATIO
    return floor + (peak - floor) * (1 + cosine) / 2


def _reference(
    model: torch.nn.Module, ids: torch.Tensor, scope: str
) -> dict[str, Any]:
    """Trains `model` in place; ids: [sequences, T]."""
    layers = [
        Layer(layer)
        for layer in model.model.layers
        if moe_parts.block_of(layer)
    ]
    _choose(model, layers, ids, scope)
    routers = [layer.router for layer in layers]
    neurons = [layer.values for layer in layers]
    options = {"weight_decay": WEIGHT_DECAY}
    neuron_optimizer = torch.optim.AdamW(neurons, **options)
    router_optimizer = torch.optim.AdamW(routers, **options)
    losses, norms = [], []
    for step in range(STEPS):
        batch = ids[step * SEQUENCES : (step + 1) * SEQUENCES]
        model.zero_grad()
        loss = _loss_sum(model, batch) / (SEQUENCES * (SEQ_LEN - 1))
        loss.backward()
        for layer in layers:
            layer.values.grad = layer.gradient()[:, layer.index]
        trained = list(neurons)
        if step >= ROUTER_WARMUP:
            trained += routers
        norms.append(torch.nn.utils.clip_grad_norm_(trained, CLIP).item())
        losses.append(loss.item())
        neuron_optimizer.param_groups[0]["lr"] = _rate(LR, step, STEPS)
        neuron_optimizer.step()
        if step >= ROUTER_WARMUP:
            router_optimizer.param_groups[0]["lr"] = _rate(
                ROUTER_LR, step - ROUTER_WARMUP, STEPS - ROUTER_WARMUP
            )
            router_optimizer.step()
        for layer in layers:
            layer.write_back()
    return {"losses": losses, "norms": norms, "layers": layers}


def _close(found: torch.Tensor, expected: torch.Tensor, bound: float) -> bool:
    return (found - expected).norm() <= bound * expected.norm()


def _tune(
    fettle: pathlib.Path, base: pathlib.Path, scope: str
) -> list[dict[str, Any]]:
    """Tunes and merges beside `base`; the lines of the metrics."""
    folder = base.parent
    # fmt: off
    _fettle(
        fettle, "tune", base,
        "--data", folder / "train.jsonl",
        "--eval-data", folder / "held.jsonl",
        "--out", folder / "tuned",
        "--merge", folder / "merged", "--merge-dtype", "float32",
        "--method", "usaf",
        "--steps", STEPS,
        "--tokens-per-step", SEQUENCES * SEQ_LEN,
        "--seq-len", SEQ_LEN,
        "--lr", LR,
        "--warmup-steps", WARMUP,
        "--min-lr-ratio", MIN_LR_RATIO,
        "--weight-decay", WEIGHT_DECAY,
        "--clip-norm", CLIP,
        "--frac", FRAC,
        "--scope", scope,
        "--score-sequences", SCORE_SEQUENCES,
        "--router-warmup", ROUTER_WARMUP,
        "--router-lr", ROUTER_LR,
    )
    # fmt: on
    text = (folder / "tuned" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _check_adapter(path: pathlib.Path, layers: dict[int, Layer]) -> None:
    """The adapter's values against those of the layers by their places."""
    adapter = safetensors.torch.load_file(path)
    for place, layer in layers.items():
        router = adapter[f"router.layers.{place}.router"]
        assert _close(router, layer.router, 1e-4)
        key = f"neurons.layers.{place}"
        if len(layer.index) == 0:
            assert f"{key}.index" not in adapter
            continue
        assert adapter[f"{key}.index"].tolist() == layer.index.tolist()
        names = ["gate_proj", "up_proj", "down_proj"][-len(layer.values):]
        for name, values in zip(names, layer.values, strict=True):
            assert _close(adapter[f"{key}.{name}"], values, 1e-4)


@pytest.mark.parametrize(
    ("family", "scope"),
    [
        ("qwen3", "global"),
        ("qwen3", "layer"),
        ("qwen2", "layer"),
        ("mixtral", "layer"),
        ("olmoe", "layer"),
        ("deepseek", "layer"),
        ("deepseek_v3", "layer"),
        ("afmoe", "layer"),
        ("gemma", "layer"),
        ("nemotron", "global"),
    ],
)
def test_ten_steps_then_merge(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str, scope: str
) -> None:
    torch.manual_seed(5)
    base = tiny_models.make(family, tmp_path)
    _write_tokenizer(base)
    # One document, so that the order of sequences is known: each continues
    # from the last token of the one before.
    document = torch.randint(VOCAB, (STEPS * SEQUENCES * (SEQ_LEN - 1) + 1,))
    held = torch.randint(VOCAB, (6, SEQ_LEN))
    _write_ids(tmp_path / "train.jsonl", [document.tolist()])
    _write_ids(tmp_path / "held.jsonl", held.tolist())

    start, *steps = _tune(fettle, base, scope)
    model = tiny_models.load(base)
    with torch.no_grad():
        before = _mean_loss(model, held)
    expected = _reference(
        model, document.unfold(0, SEQ_LEN, SEQ_LEN - 1), scope
    )
    assert start["step"] == 0
    assert _held_out(start) == pytest.approx(before, rel=1e-4)
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    losses = [line["loss"] for line in steps]
    assert losses == pytest.approx(expected["losses"], rel=1e-4)
    # Norms show what updates made of rounding; losses hide it.
    norms = [line["grad_norm"] for line in steps]
    assert norms == pytest.approx(expected["norms"], rel=1e-3)
    places = [
        place
        for place, layer in enumerate(model.model.layers)
        if moe_parts.block_of(layer)
    ]
    _check_adapter(
        tmp_path / "tuned" / "adapter.safetensors",
        dict(zip(places, expected["layers"], strict=True)),
    )

    # Merged and reloaded: the loss that tuning ended with. Evaluation may
    # batch otherwise than tuning, which changes the last bits.
    _fettle(
        fettle, "eval", tmp_path / "merged",
        "--data", tmp_path / "held.jsonl",
        "--seq-len", SEQ_LEN,
        "--json", tmp_path / "eval.json",
    )  # fmt: skip
    tuned = _held_out(steps[-1])
    merged = json.loads((tmp_path / "eval.json").read_text())
    assert merged["files"][0]["nll"] == pytest.approx(tuned, rel=1e-6)
    with torch.no_grad():
        reloaded = tiny_models.load(tmp_path / "merged")
        assert _mean_loss(reloaded, held) == pytest.approx(tuned, rel=1e-4)
        assert _mean_loss(model, held) == pytest.approx(tuned, rel=1e-4)
