# SPDX-License-Identifier: Apache-2.0
"""Models with condensers against routers patched into transformers' models."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

import condenser_reference
import expert_trace
import pytest
import safetensors
import safetensors.torch
import test_families
import test_tune
import tiny_models
import tokenizers
import torch

STEPS = 10
AFTER = 6
RATE = 0.05
CONDENSED_RATE = 0.02
SEQ_LEN = test_tune.SEQ_LEN
SEQUENCES = test_tune.SEQUENCES
COUNT = {"qwen3": 2, "mixtral": 1}  # condensers of a layer


def _run(program: pathlib.Path, *arguments: Any) -> None:
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _gate_name(family: str) -> str:
    return "block_sparse_moe.gate" if family == "mixtral" else "mlp.gate"


def _with_condensers(
    folder: pathlib.Path, family: str
) -> tuple[list[torch.Tensor], list[list[int]]]:
    """Writes random biases and condensers into a model folder."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    config = json.loads((folder / "config.json").read_text())
    generator = torch.Generator().manual_seed(11)
    biases, lists, layers = [], [], []
    width = config.get("moe_intermediate_size", config["intermediate_size"])
    for layer in range(config["num_hidden_layers"]):
        gate = f"model.layers.{layer}.{_gate_name(family)}"
        experts = tensors[f"{gate}.weight"].shape[0]
        biases.append(3 * torch.randn(experts, generator=generator))
        order = torch.randperm(experts, generator=generator)
        # Different numbers, none among them.
        lists.append(sorted(order[: layer % 3].tolist()))
        tensors[f"{gate}.logit_bias"] = biases[-1]
        layers.append(
            {
                "top_k": config["num_experts_per_tok"],
                "expert_widths": [width] * experts,
                "condensers": lists[-1],
                "router_bias": True,
            }
        )
    config["fettle"] = {"format": 2, "layers": layers}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return biases, lists


@pytest.mark.parametrize(
    "family", ["qwen3", "qwen3_unnormalized_tied", "mixtral"]
)
def test_logits(
    family: str, probe: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    folder = tiny_models.make(family, tmp_path)
    model = tiny_models.load(folder)
    generator = torch.Generator().manual_seed(2)
    ids = [
        torch.randint(97, (n,), generator=generator).tolist() for n in (30, 7)
    ]
    with torch.no_grad():
        plain = test_families.reference_logits(model, ids)
    biases, lists = _with_condensers(folder, family)
    gates = condenser_reference.install(model)
    with torch.no_grad():
        # The reference without either is transformers' own routing.
        unpatched = test_families.reference_logits(model, ids)
        test_families.assert_close(
            unpatched, plain, "reference", test_families.TOLERANCE["cpu"])
        for gate, bias, condensers in zip(gates, biases, lists, strict=True):
            gate.bias, gate.condensers = bias, condensers
        expected = test_families.reference_logits(model, ids)
    for device in ("cpu", "cuda"):
        found = probe("logits", folder, ids, device)
        test_families.assert_close(
            found["logits"], expected, "logits", test_families.TOLERANCE[device])
    # Not what the model would be without.
    assert (plain - expected).abs().max() > 0.1 * plain.abs().max()


def _eval(
    fettle: pathlib.Path, model: pathlib.Path, out: pathlib.Path
) -> float:
    # fmt: off
    _run(
        fettle, "eval", model,
        "--data", out.parent / "held.jsonl",
        "--seq-len", SEQ_LEN, "--json", out, "--quiet",
    )
    # fmt: on
    return json.loads(out.read_text())["files"][0]["nll"]


def _expect(model: torch.nn.Module, ids: torch.Tensor, count: int):
    """Losses of the steps and the routers they leave; trains nothing else."""
    gates = condenser_reference.install(model)
    losses = []
    for step in range(STEPS):
        if step == AFTER:
            for gate in gates:
                condenser_reference.choose(gate, count)
        batch = ids[step * SEQUENCES : (step + 1) * SEQUENCES]
        with torch.no_grad():
            losses.append(test_tune._mean_loss(model, batch))
        for gate in gates:
            condenser_reference.update(
                gate, RATE if step < AFTER else CONDENSED_RATE
            )
    return losses, gates


def _tune(fettle: pathlib.Path, base: pathlib.Path, count: int) -> list[Any]:
    folder = base.parent
    # fmt: off
    _run(
        fettle, "tune", base,
        "--data", folder / "train.jsonl",
        "--eval-data", folder / "held.jsonl",
        "--out", folder / "tuned",
        "--merge", folder / "merged", "--merge-dtype", "float32",
        "--method", "condenser",
        "--steps", STEPS,
        "--tokens-per-step", SEQUENCES * SEQ_LEN,
        "--seq-len", SEQ_LEN,
        "--condensers", count,
        "--condenser-after", AFTER,
        "--bias-rate", RATE,
        "--condenser-bias-rate", CONDENSED_RATE,
        "--quiet",
    )
    # fmt: on
    text = (folder / "tuned" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("family", ["qwen3", "mixtral"])
def test_ten_steps_then_every_stage(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str
) -> None:
    torch.manual_seed(6)
    base = tiny_models.make(family, tmp_path)
    test_tune._write_tokenizer(base)
    document = torch.randint(97, (STEPS * SEQUENCES * (SEQ_LEN - 1) + 1,))
    held = torch.randint(97, (6, SEQ_LEN))
    test_tune._write_ids(tmp_path / "train.jsonl", [document.tolist()])
    test_tune._write_ids(tmp_path / "held.jsonl", held.tolist())

    model = tiny_models.load(base)
    count = COUNT[family]
    losses, gates = _expect(
        model, document.unfold(0, SEQ_LEN, SEQ_LEN - 1), count
    )
    _, *steps = _tune(fettle, base, count)
    assert [line["loss"] for line in steps] == pytest.approx(losses, rel=1e-4)

    # Signs are exact, and so are the sums of the rates in fp32.
    merged = tmp_path / "merged"
    config = json.loads((merged / "config.json").read_text())
    layers = config["fettle"]["layers"]
    with safetensors.safe_open(
        expert_trace.weights_file(merged), "pt"
    ) as stored:
        for index, gate in enumerate(gates):
            assert layers[index]["condensers"] == gate.condensers
            assert len(gate.condensers) == count
            name = f"model.layers.{index}.{_gate_name(family)}.logit_bias"
            assert torch.allclose(
                stored.get_tensor(name), gate.bias, rtol=1e-6, atol=1e-7
            )

    # What tuning saw at its end, evaluation sees, and the reference.
    tuned = test_tune._held_out(steps[-1])
    nll = _eval(fettle, merged, tmp_path / "eval.json")
    assert nll == pytest.approx(tuned, rel=1e-6)
    with torch.no_grad():
        expected = test_tune._mean_loss(model, held)
    assert expected == pytest.approx(tuned, rel=1e-4)
    bare = _eval(fettle, base, tmp_path / "base.json")
    assert abs(bare - nll) > 1e-4

    _check_generation(fettle, merged, model)
    _check_trim(fettle, merged, layers, tmp_path)
    _check_export(fettle, merged, {"kept": nll, "bare": bare})


def _check_generation(
    fettle: pathlib.Path, merged: pathlib.Path, model: torch.nn.Module
) -> None:
    """Greedy tokens are the reference's argmax, token by token."""
    text = "ABC"
    out = merged.parent / "generated.json"
    # fmt: off
    _run(
        fettle, "generate", merged, "--prompt", text,
        "--max-new-tokens", 8, "--temperature", 0, "--json", out, "--quiet",
    )
    # fmt: on
    tokenizer = tokenizers.Tokenizer.from_file(str(merged / "tokenizer.json"))
    ids = list(tokenizer.encode(text).ids)
    for found in json.loads(out.read_text())["ids"]:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        assert logits.argmax().item() == found
        ids.append(found)


def _check_trim(
    fettle: pathlib.Path,
    merged: pathlib.Path,
    layers: list[dict[str, Any]],
    folder: pathlib.Path,
) -> None:
    """Whole experts go, condensers stay, under new numbers."""
    # fmt: off
    _run(
        fettle, "analyze", merged, "--data", folder / "held.jsonl",
        "--seq-len", SEQ_LEN, "--out", folder / "scores", "--quiet",
    )
    _run(
        fettle, "trim", merged, "--scores", folder / "scores",
        "--unit", "expert", "--scope", "layer", "--keep", 0.5,
        "--out", folder / "trimmed", "--quiet",
    )
    # fmt: on
    config = json.loads((folder / "trimmed" / "config.json").read_text())
    plan = json.loads((folder / "trimmed" / "trim_plan.json").read_text())
    for before, after, kept in zip(
        layers, config["fettle"]["layers"], plan["layers"], strict=True
    ):
        experts = [expert["expert"] for expert in kept["experts"]]
        assert len(experts) == math.ceil(len(before["expert_widths"]) / 2)
        back = [experts[e] for e in after["condensers"]]
        assert back == before["condensers"]
    assert _eval(fettle, folder / "trimmed", folder / "trimmed.json") > 0


def _check_export(
    fettle: pathlib.Path, merged: pathlib.Path, nll: dict[str, float]
) -> None:
    """Stock layouts refuse; ragged keeps; asked to, they leave routers bare."""
    folder = merged.parent
    refused = subprocess.run(
        [fettle, "export", merged, "--out", folder / "stock", "--format", "hf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "condensers and a router bias" in refused.stderr
    assert "drop-condensers" in refused.stderr
    assert not (folder / "stock").exists()
    _run(
        fettle, "export", merged, "--out", folder / "ragged",
        "--format", "ragged", "--quiet",
    )  # fmt: skip
    kept = _eval(fettle, folder / "ragged", folder / "ragged.json")
    assert kept == pytest.approx(nll["kept"], rel=1e-9)
    _run(
        fettle, "export", merged, "--out", folder / "stock",
        "--format", "hf", "--drop-condensers", "--quiet",
    )  # fmt: skip
    # Only the routers had changed: the base is back.
    dropped = _eval(fettle, folder / "stock", folder / "stock.json")
    assert dropped == pytest.approx(nll["bare"], rel=1e-6)
