# SPDX-License-Identifier: Apache-2.0
"""Ten steps of full equal PyTorch: every weight, tied heads too.

Which of them decay is what transformers' Trainer says.
"""

from __future__ import annotations

import json
import pathlib

import pytest
import test_methods
import test_tune
import tiny_models
import torch
import transformers

TIED = [
    "qwen3_unnormalized_tied",
    "qwen2_grouped_tied",
    "mixtral_tied_linear",
    "olmoe_tied_yarn",
    "deepseek_all_sparse_tied",
]

# With factors of embeddings, residuals or logits.
SCALED = ["granite_shared", "gemma"]

# Layers of one mixer or MLP each, without gates.
SINGLE = ["nemotron"]


# Vectors that the Trainer's patterns miss: rates of a state's decay and factors
# of what passes by it, which their authors' own trainers leave out too, and a
# norm whose name ends otherwise.
UNDECAYED = ("A_log", ".D", "norm_f.weight")


def _all_weights(model: torch.nn.Module) -> list[list[test_methods.Trained]]:
    """All parameters, as they are clipped when their states are on disk."""
    head, embeddings = [], []
    decay = transformers.Trainer.get_decay_parameter_names(None, model)
    layers: dict[int, list[test_methods.Trained]] = {}
    for name, parameter in model.named_parameters():
        if name.endswith("expert_bias"):  # has no gradient
            continue
        mask = torch.ones_like(parameter, dtype=torch.bool)
        one = test_methods.Trained(
            parameter,
            mask,
            # Biases of down are one tensor in Fettle too, and updated as one.
            by_expert="experts." in name and "down_proj_bias" not in name,
            decays=name in decay and not name.endswith(UNDECAYED),
        )
        if name.startswith("model.layers."):
            layers.setdefault(int(name.split(".")[2]), []).append(one)
        else:
            (embeddings if "embed" in name else head).append(one)
    return [head, embeddings, *layers.values()]


def _export(case: test_methods.Case, model: pathlib.Path) -> pathlib.Path:
    out = case.folder / "exported"
    test_tune._fettle(
        case.fettle, "export", model, "--out", out, "--format", "hf"
    )
    return out


# In memory nothing differs that a family changes.
@pytest.mark.parametrize(
    ("family", "states"),
    [(family, "disk") for family in test_methods.FAMILIES + TIED + SCALED + SINGLE + ["gpt_oss"]]
    + [("qwen3", "ram"), ("deepseek", "device")]
    + [(TIED[0], "ram"), (TIED[4], "device")]
    + [("qwen_next_types_bias_tied", "disk")],
)
def test_full(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str, states: str
) -> None:
    case = test_methods.Case(fettle, tmp_path, family)
    found = case.tune("--method", "full", "--states", states)
    groups = _all_weights(case.model)
    assert {one.decays for group in groups for one in group} == {True, False}
    norms: list[float] = []
    expected = test_methods._train(
        case.model,
        case.ids,
        [one for group in groups for one in group],
        test_tune._loss_sum,
        groups if states == "disk" else None,
        norms,
    )
    case.check(found, expected)
    # A model of norms above a hundred makes much of rounding in ten steps.
    assert case.metric("grad_norm") == pytest.approx(norms, rel=2e-2)
    assert case.metric("grad_norm")[0] == pytest.approx(norms[0], rel=1e-4)
    # Merged or exported: the logits of the program's model.
    merged = tmp_path / "merged"
    with torch.no_grad():
        meant = case.model(input_ids=case.ids[:2]).logits
        start = tiny_models.load(case.base)(input_ids=case.ids[:2]).logits
        for folder in (merged, _export(case, merged)):
            logits = tiny_models.load(folder)(input_ids=case.ids[:2]).logits
            assert (logits - meant).norm() < 2e-3 * (meant - start).norm()


# One step's norm is that of the only weight that the pattern names.
@pytest.mark.parametrize("family", test_methods.FAMILIES + TIED)
def test_gradients_outside_the_layers(
    fettle: pathlib.Path, tmp_path: pathlib.Path, family: str
) -> None:
    case = test_methods.Case(fettle, tmp_path, family)
    loss = test_tune._loss_sum(case.model, case.ids[:test_methods.SEQUENCES])
    (loss / (test_methods.SEQUENCES * (test_methods.SEQ_LEN - 1))).backward()
    names = [
        name
        for name, _ in case.model.named_parameters()
        if not name.startswith("model.layers.")
    ]
    assert len(names) == (2 if family in TIED else 3)
    for states in ("disk", "ram"):
        for name in names:
            out = tmp_path / f"{states}-{name}"
            test_tune._fettle(
                fettle, "tune", case.base,
                "--data", tmp_path / "train.jsonl",
                "--out", out,
                "--method", "full",
                "--states", states,
                "--match", f"^{name}$".replace(".", r"\."),
                "--steps", 1,
                "--tokens-per-step",
                test_methods.SEQUENCES * test_methods.SEQ_LEN,
                "--seq-len", test_methods.SEQ_LEN,
            )  # fmt: skip
            line = json.loads((out / "metrics.jsonl").read_text())
            expected = case.model.get_parameter(name).grad.norm().item()
            assert line["grad_norm"] == pytest.approx(expected, rel=1e-4), name
