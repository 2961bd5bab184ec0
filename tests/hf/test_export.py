# SPDX-License-Identifier: Apache-2.0
"""Trimmed models against masks in PyTorch, and exports in transformers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import expert_trace
import pytest
import safetensors.torch
import tiny_models
import torch

# Both sides sum in fp32, in different orders.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(6, 19)


@pytest.fixture
def scored(request, fettle, ids, tmp_path) -> pathlib.Path:
    """A variant's folder; its scores lie in scores/ beside it."""
    folder = tiny_models.make(request.param, tmp_path)
    expert_trace.write_tokenizer(folder)
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
        "obs,reap",
    )
    return folder


def trim(fettle, folder: pathlib.Path, **options: Any) -> pathlib.Path:
    out = folder.parent / "trimmed"
    flags = [
        part
        for name, value in options.items()
        for part in ("--" + name, value)
    ]
    scores = folder.parent / "scores"
    expert_trace.run(
        fettle, "trim", folder, "--scores", scores, "--out", out, *flags
    )
    return out


def export(fettle, folder: pathlib.Path, *flags: Any) -> pathlib.Path:
    out = folder.parent / "exported"
    expert_trace.run(fettle, "export", folder, "--out", out, *flags)
    return out


def assert_close(
    found: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE
) -> None:
    error = (found - expected).abs().max().item()
    assert error <= tolerance * expected.abs().max().item()


def transformers_logits(
    model: torch.nn.Module, ids: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits.flatten(0, 1)


def parse_spans(text: str) -> list[int]:
    result: list[int] = []
    for span in filter(None, text.split(",")):
        first, _, last = span.partition("-")
        result += range(int(first), int(last or first) + 1)
    return result


def cut_by_plan(
    model: torch.nn.Module, trimmed: pathlib.Path, constant: bool
) -> None:
    """Masks the neurons that the plan drops; adds their mean output."""
    plan = json.loads((trimmed / "trim_plan.json").read_text())
    scores = safetensors.torch.load_file(
        trimmed.parent / "scores" / "scores.safetensors"
    )
    for layer, experts in expert_trace.trace(model).items():
        down = experts.module.down_proj.data
        mean = scores[f"layers.{layer}.mean_h"].view(down.shape[0], -1)
        for entry in plan["layers"][layer]["experts"]:
            e = entry["expert"]
            kept = torch.zeros(down.shape[2])
            kept[parse_spans(entry["neurons"])] = 1
            lost = down[e] @ (mean[e] * (1 - kept))
            experts.cuts[e] = expert_trace.Cut(
                kept, lost if constant else torch.zeros_like(lost)
            )


@pytest.mark.parametrize(
    ("scored", "scope", "repair"),
    [
        (variant, scope, repair)
        for variant in ("qwen3", "deepseek")
        for scope in ("global", "layer", "expert")
        for repair in ("none", "constant")
    ]
    + [("gpt_oss", "global", "none"), ("gpt_oss", "expert", "constant")],
    indirect=["scored"],
)
def test_trimming_is_masking(scored, scope, repair, fettle, build_dir, ids):
    trimmed = trim(fettle, scored, keep=0.4, scope=scope, repair=repair)
    model = tiny_models.load(scored)
    cut_by_plan(model, trimmed, repair == "constant")
    assert_close(
        expert_trace.fettle_logits(build_dir, trimmed, ids),
        transformers_logits(model, ids),
    )


@pytest.mark.parametrize(
    "scored",
    [
        "qwen3",
        "qwen2",
        "mixtral",
        "olmoe",
        "deepseek",
        "glm",
        "minimax",
        "granite_shared",
        "gemma",
        "gpt_oss",
        "lfm2",
        "qwen_next",
        "nemotron",
        "qwen3_sparse_step",
        "mixtral_fused",
    ],
    indirect=True,
)
def test_padded_export_loads_in_transformers(scored, fettle, build_dir, ids):
    trimmed = trim(fettle, scored, keep=0.4)
    exported = export(fettle, trimmed, "--format", "hf-padded")
    assert "fettle" not in json.loads((exported / "config.json").read_text())
    assert_close(
        transformers_logits(tiny_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, trimmed, ids),
    )


@pytest.mark.parametrize("unit", ["neuron", "expert"])
@pytest.mark.parametrize(
    "scored",
    [
        "qwen3",
        "qwen2",
        "mixtral",
        "olmoe",
        "deepseek",
        "deepseek_v3",
        "ernie",
        "afmoe",
        "gemma",
        "gpt_oss",
        "lfm2",
        "qwen35",
        "granite_hybrid",
        "nemotron",
    ],
    indirect=True,
)
def test_uniform_export_loads_in_transformers(
    scored, unit, fettle, build_dir, ids
):
    trimmed = trim(
        fettle,
        scored,
        keep=0.5 if unit == "neuron" else 0.75,
        unit=unit,
        scope="expert",
        score="obs" if unit == "neuron" else "reap",
    )
    exported = export(fettle, trimmed, "--format", "hf")
    model = tiny_models.load(exported)
    assert_close(
        transformers_logits(model, ids),
        expert_trace.fettle_logits(build_dir, trimmed, ids),
    )
    parameters = sum(p.numel() for p in tiny_models.load(scored).parameters())
    assert sum(p.numel() for p in model.parameters()) < parameters


KEPT = ("e_score_correction_bias", "A_log", "dt_bias")


@pytest.mark.parametrize("scored", ["qwen3", "ernie", "qwen35"], indirect=True)
def test_export_in_another_type(scored, fettle, build_dir, ids):
    exported = export(fettle, scored, "--format", "hf", "--dtype", "bfloat16")
    tensors = safetensors.torch.load_file(exported / "model.safetensors")
    for name, tensor in tensors.items():
        kept = name.endswith(KEPT)
        assert tensor.dtype == (torch.float32 if kept else torch.bfloat16), name
    config = json.loads((exported / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert_close(
        transformers_logits(tiny_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, exported, ids),
    )
