# SPDX-License-Identifier: Apache-2.0
"""Ten steps of lora equal a PyTorch program; then merge, and load with PEFT.

The program adds B A to the model's parameters before each forward pass and
lets autograd form the gradients of A and B through the sum.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import moe_parts
import peft
import pytest
import safetensors.torch
import test_tune
import tiny_models
import torch

RANK = 3
ALPHA = 7.5
STEPS = test_tune.STEPS
SEQ_LEN = test_tune.SEQ_LEN
SEQUENCES = test_tune.SEQUENCES
TARGETS = {
    "qwen3": "experts,attention",
    "qwen3_mlp_only": "dense",
    "qwen2": "experts,attention,shared",
    "mixtral": "experts,attention",
    "olmoe": "experts",
    "deepseek": "experts,attention,shared,dense",
    "gpt_oss": "experts,attention",
    "afmoe": "experts,attention,shared,dense",
    "gemma": "experts,attention,dense",
    "qwen_next": "experts,attention,shared",
    "qwen35": "attention",
    "lfm2": "experts,attention,dense",
    "granite_hybrid": "experts,attention",
    "nemotron": "experts,attention,shared,dense",
}

# PEFT refuses what Mamba's kernels pass by in models of this type.
PEFT_TARGETS = {"nemotron": "experts,shared,dense"}

# Of a pair's norm after ten steps. Where gradients nearly cancel, Adam makes much
# of how they were rounded: 6e-4 on the CPU, 1.1e-3 on a card, of mixtral.
BOUND = 3e-3


class Pair:
    """A and B beside one parameter, or beside each expert's part of it."""

    def __init__(self, key: str, matrices: int, upright: bool) -> None:
        self.key = key  # in Fettle's adapter
        self.matrices = matrices
        self.upright = upright

    def sides(
        self, adapter: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """B [E, out, r] and A [E, r, in] as the adapter holds them."""
        left = adapter[f"{self.key}.left"]
        right = adapter[f"{self.key}.right"]
        left = left.view(self.matrices, -1, RANK)
        right = right.view(self.matrices, RANK, -1)
        if self.upright:
            return left, right
        return right.transpose(1, 2), left.transpose(1, 2)

    def start(self, adapter: dict[str, torch.Tensor]) -> None:
        # One step moves no A: its gradient has the factor B, which is zero.
        b, a = self.sides(adapter)
        self.b = [torch.nn.Parameter(torch.zeros_like(one)) for one in b]
        self.a = [torch.nn.Parameter(one.clone()) for one in a]

    def delta(self, shape: torch.Size) -> torch.Tensor:
        product = torch.stack([b @ a for b, a in zip(self.b, self.a)])
        if self.matrices > 1 and product.shape != shape:
            # gpt-oss's stacks: inputs by outputs, gate and up in turns.
            if self.upright:
                product = torch.stack(product.chunk(2, 1), 2).flatten(1, 2)
            product = product.transpose(1, 2)
        return (ALPHA / RANK * product).reshape(shape)

    def parameters(self) -> list[torch.nn.Parameter]:
        return self.b + self.a

    def forget_unused(self, used: set[int]) -> None:
        """No gradient, so no update and no decay, without a token."""
        for e in range(self.matrices):
            if self.matrices > 1 and e not in used:
                self.b[e].grad = self.a[e].grad = None


ROLES = {
    "mlp.shared_expert.": "shared",
    "mlp.shared_experts.": "shared",
    "mlp.": "dense",
    "feed_forward.": "dense",
    "mixer.shared_experts.": "shared",
    "mixer.": "dense",
}
# Of what layers have in the place of attention, or call otherwise.
MIXERS = {
    "linear_attn.in_proj_qkv": "delta_qkv",
    "linear_attn.in_proj_z": "delta_gate",
    "linear_attn.in_proj_qkvz": "delta_qkv_gate",
    "linear_attn.out_proj": "delta_out",
    "mamba.in_proj": "mamba_in",
    "mamba.out_proj": "mamba_out",
    "conv.in_proj": "short_conv_in",
    "conv.out_proj": "short_conv_out",
    "self_attn.out_proj": "o_proj",
    "mixer.in_proj": "mamba_in",
    "mixer.out_proj": "mamba_out",
    **{f"mixer.{part}_proj": f"{part}_proj" for part in "qkvo"},
}
MLP = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def _pair(name: str, shape: torch.Size, targets: list[str]) -> Pair | None:
    """The pair beside parameter `name`, where the targets ask for one."""
    if not name.startswith("model.layers."):
        return None
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    key = f"lora.layers.{layer}"
    if rest.endswith("experts.gate_up_proj") and "experts" in targets:
        return Pair(f"{key}.expert_gate_up", shape[0], True)
    if rest.endswith("experts.up_proj") and "experts" in targets:
        return Pair(f"{key}.expert_up", shape[0], True)
    if rest.endswith("experts.down_proj") and "experts" in targets:
        return Pair(f"{key}.expert_down", shape[0], False)
    module = rest.removesuffix(".weight")
    if module == rest or len(shape) != 2:
        return None
    prefix, _, last = module.rpartition(".")
    if module == "self_attn.gate_proj" and "attention" in targets:
        return Pair(f"{key}.attention_gate", 1, True)
    last = MLP.get(last, last)
    if module in MIXERS:
        attends = "attention" in targets
        return Pair(f"{key}.{MIXERS[module]}", 1, True) if attends else None
    if prefix == "self_attn" and "attention" in targets:
        return Pair(f"{key}.{last.removesuffix('_with_mqa')}", 1, True)
    kind = ROLES.get(f"{prefix}.")
    if kind in targets and last in ("gate_proj", "up_proj", "down_proj"):
        part = last.removesuffix("_proj")
        return Pair(f"{key}.{kind}_{part}", 1, part != "down")
    return None


def _pairs(model: torch.nn.Module, targets: str) -> dict[str, Pair]:
    found = {}
    for name, parameter in model.named_parameters():
        pair = _pair(name, parameter.shape, targets.split(","))
        if pair is not None:
            found[name] = pair
    return found


def _loss(
    model: torch.nn.Module, pairs: dict[str, Pair], ids: torch.Tensor
) -> torch.Tensor:
    changed = {
        name: parameter.detach() + pairs[name].delta(parameter.shape)
        for name, parameter in model.named_parameters()
        if name in pairs
    }
    logits = torch.func.functional_call(
        model, changed, kwargs={"input_ids": ids}
    ).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), ids[:, 1:].flatten()
    )


def _watch_routing(model: torch.nn.Module) -> dict[str, set[int]]:
    """By layer, in the adapter's words: the experts that the last pass used."""
    used: dict[str, set[int]] = {}

    def watch(place: int) -> Any:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            used[f"lora.layers.{place}"] = set(inputs[1].unique().tolist())

        return hook

    for place, layer in enumerate(model.model.layers):
        block = moe_parts.block_of(layer)
        if block is not None:
            block.experts.register_forward_pre_hook(watch(place))
    return used


def _reference(
    model: torch.nn.Module, pairs: dict[str, Pair], ids: torch.Tensor
) -> tuple[list[float], list[float]]:
    parameters = [p for pair in pairs.values() for p in pair.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, weight_decay=test_tune.WEIGHT_DECAY
    )
    used = _watch_routing(model)
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        first = step * SEQUENCES
        loss = _loss(model, pairs, ids[first : first + SEQUENCES])
        loss.backward()
        for pair in pairs.values():
            pair.forget_unused(used.get(pair.key.rpartition(".")[0], set()))
        clip = test_tune.CLIP
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, clip).item())
        losses.append(loss.item())
        rate = test_tune._rate(test_tune.LR, step, STEPS)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return losses, norms


def _tune(
    fettle: pathlib.Path, base: pathlib.Path, name: str, *more: Any
) -> list[dict[str, Any]]:
    """Tunes beside `base` into `name`; the lines of the metrics."""
    folder = base.parent
    # fmt: off
    test_tune._fettle(
        fettle, "tune", base,
        "--data", folder / "train.jsonl",
        "--eval-data", folder / "held.jsonl",
        "--out", folder / name,
        "--method", "lora",
        "--rank", RANK,
        "--lora-alpha", ALPHA,
        "--tokens-per-step", SEQUENCES * SEQ_LEN,
        "--seq-len", SEQ_LEN,
        "--lr", test_tune.LR,
        "--min-lr-ratio", test_tune.MIN_LR_RATIO,
        "--clip-norm", test_tune.CLIP,
        *more,
    )
    # fmt: on
    text = (folder / name / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _prepare(
    family: str, folder: pathlib.Path
) -> tuple[pathlib.Path, torch.Tensor, torch.Tensor]:
    """The base, one long document of training ids, and held-out sequences."""
    torch.manual_seed(6)
    vocab = test_tune.VOCAB
    base = tiny_models.make(family, folder)
    test_tune._write_tokenizer(base)
    document = torch.randint(vocab, (STEPS * SEQUENCES * (SEQ_LEN - 1) + 1,))
    held = torch.randint(vocab, (6, SEQ_LEN))
    test_tune._write_ids(folder / "train.jsonl", [document.tolist()])
    test_tune._write_ids(folder / "held.jsonl", held.tolist())
    return base, document, held


@pytest.mark.parametrize("family", TARGETS)
def test_ten_steps_then_merge(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str
) -> None:
    base, document, held = _prepare(family, tmp_path)
    targets = ("--lora-targets", TARGETS[family])
    _tune(fettle, base, "start", "--steps", 1, *targets)
    start = safetensors.torch.load_file(
        tmp_path / "start" / "adapter.safetensors"
    )
    _, *steps = _tune(
        fettle, base, "tuned", "--steps", STEPS,
        "--warmup-steps", test_tune.WARMUP,
        "--weight-decay", test_tune.WEIGHT_DECAY,
        "--merge", tmp_path / "merged", "--merge-dtype", "float32", *targets,
    )  # fmt: skip
    model = tiny_models.load(base)
    pairs = _pairs(model, TARGETS[family])
    # Two sides each, and the scale.
    assert len(start) == 2 * len(pairs) + 1
    for pair in pairs.values():
        pair.start(start)
    losses, norms = _reference(
        model, pairs, document.unfold(0, SEQ_LEN, SEQ_LEN - 1)
    )
    assert [line["loss"] for line in steps] == pytest.approx(losses, rel=1e-4)
    # Norms show what updates made of rounding; losses hide it.
    found = [line["grad_norm"] for line in steps]
    assert found == pytest.approx(norms, rel=1e-3)
    tuned = safetensors.torch.load_file(
        tmp_path / "tuned" / "adapter.safetensors"
    )
    # AdamW goes by a gradient's sign at first, which rounding decides where the
    # gradient is next to nothing: one weight of a pair can be that far off.
    for pair in pairs.values():
        b, a = pair.sides(tuned)
        assert test_tune._close(b, torch.stack(pair.b).data, BOUND), pair.key
        assert test_tune._close(a, torch.stack(pair.a).data, BOUND), pair.key

    with torch.no_grad():
        reloaded = tiny_models.load(tmp_path / "merged")
        nll = test_tune._mean_loss(reloaded, held)
    assert nll == pytest.approx(test_tune._held_out(steps[-1]), rel=1e-4)


@pytest.mark.parametrize(
    "family",
    [
        "qwen3", "qwen3_sparse_step", "qwen2", "mixtral", "deepseek", "afmoe",
        "gemma", "qwen_next", "lfm2", "nemotron",
    ],
)
def test_peft_loads_the_adapter(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str
) -> None:
    base, _, held = _prepare(family, tmp_path)
    targets = PEFT_TARGETS.get(
        family, TARGETS.get(family, "experts,attention,dense")
    )
    _tune(
        fettle, base, "tuned", "--steps", 3, "--lora-targets", targets,
        "--merge", tmp_path / "merged", "--merge-dtype", "float32",
        "--peft", tmp_path / "peft",
    )  # fmt: skip
    # The finished adapter gives the same later.
    later = tmp_path / "later"
    test_tune._fettle(
        fettle, "merge", base, "--adapter", tmp_path / "tuned", "--peft", later
    )
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (later / name).read_bytes() == (
            tmp_path / "peft" / name
        ).read_bytes()
    merged = tiny_models.load(tmp_path / "merged")
    untouched = tiny_models.load(base)
    with torch.no_grad():
        before = untouched(input_ids=held).logits
        expected = merged(input_ids=held).logits
        model = peft.PeftModel.from_pretrained(untouched, later)
        found = model(input_ids=held).logits
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-4 * scale
    # That is not for want of a difference.
    assert (before - expected).abs().max() > 1e-2 * scale
    # Every pair found its place, and none was made up.
    weights = safetensors.torch.load_file(
        tmp_path / "peft" / "adapter_model.safetensors"
    )
    placed = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(placed) == len(weights)


def test_what_peft_cannot_hold_is_refused_before_tuning(
    fettle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    base, _, _ = _prepare("qwen3", tmp_path)
    done = subprocess.run(
        [
            str(fettle), "tune", str(base),
            "--data", str(tmp_path / "train.jsonl"),
            "--out", str(tmp_path / "tuned"),
            "--method", "lora+router",
            "--peft", str(tmp_path / "peft"),
            "--seq-len", str(SEQ_LEN),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "also router" in done.stderr
    assert not (tmp_path / "tuned").exists()
