# SPDX-License-Identifier: Apache-2.0
"""The ridge repair against a plain least squares in PyTorch."""

from __future__ import annotations

import json
import pathlib

import expert_trace
import pytest
import safetensors.torch
import tiny_models
import torch
from test_export import assert_close, export, parse_spans, transformers_logits

LAMBDA = 0.02
# Both sides sum moments in different orders, Fettle in fp32: their rounding,
# 1e-7, is magnified by at most 1 / LAMBDA.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(24, 19)


def repaired(
    fettle: pathlib.Path, folder: pathlib.Path, ids: torch.Tensor, repair: str
) -> pathlib.Path:
    """Scores and trims the model in `folder`."""
    expert_trace.write_tokenizer(folder)
    data = expert_trace.write_ids(folder.parent / "data.jsonl", ids)
    scores = folder.parent / "scores"
    out = folder.parent / "trimmed"
    expert_trace.run(
        fettle, "analyze", folder, "--data", data, "--out", scores,
        "--scores", "wanda", "--tokens", 0,
    )
    expert_trace.run(
        fettle, "trim", folder, "--scores", scores, "--out", out,
        "--score", "wanda", "--keep", 0.4, "--repair", repair,
        "--data", data, "--tokens", 0, "--ridge-lambda", LAMBDA,
    )
    return out


def least_squares(
    h: torch.Tensor,
    p: torch.Tensor,
    down: torch.Tensor,
    kept: list[int],
    held: float,
    constant: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [H, S] and constant [H]: rows weighted by p, and a ridge."""
    rows = h[:, kept] * p[:, None]
    target = (h * p[:, None]) @ down.T
    root = torch.eye(len(kept), dtype=h.dtype) * held**0.5
    bound = down[:, kept].T * held**0.5
    if constant:
        rows = torch.cat([rows, p[:, None]], 1)
        root = torch.cat([root, torch.zeros(len(kept), 1, dtype=h.dtype)], 1)
    solution = torch.linalg.lstsq(
        torch.cat([rows, root]), torch.cat([target, bound]), driver="gelsd"
    ).solution
    if constant:
        return solution[:-1].T, solution[-1]
    return solution.T, torch.zeros(down.shape[0], dtype=h.dtype)


@pytest.mark.parametrize("repair", ["ridge", "ridge+constant"])
@pytest.mark.parametrize(
    "variant", ["qwen3", "qwen2", "mixtral", "deepseek_groups"]
)
def test_repair_is_least_squares(variant, repair, fettle, ids, tmp_path):
    folder = tiny_models.make(variant, tmp_path)
    trimmed = repaired(fettle, folder, ids, repair)
    plan = json.loads((trimmed / "trim_plan.json").read_text())
    model = tiny_models.load(folder)
    traced = expert_trace.trace(model)
    with torch.no_grad():
        expert_trace.loss_sum(model, ids)
    weights = safetensors.torch.load_file(
        expert_trace.weights_file(trimmed)
    )
    names = sorted(n for n in weights if "experts" in n)
    compared = 0
    for layer, experts in traced.items():
        calls = {call.expert: call for call in experts.calls}
        down = experts.module.down_proj.double()
        seen = [c.h.double() * c.weight.double()[:, None] for c in calls.values()]
        energy = sum(s.square().sum() for s in seen)
        held = float(LAMBDA * energy / (down.shape[0] * down.shape[2]))
        for entry in plan["layers"][layer]["experts"]:
            e, kept = entry["expert"], parse_spans(entry["neurons"])
            if e not in calls or not 0 < len(kept) < down.shape[2]:
                continue
            expected, constant = least_squares(
                calls[e].h.double(), calls[e].weight.double(),
                down[e], kept, held, repair != "ridge",
            )
            name = next(
                n for n in names
                if f"layers.{layer}." in n and f"experts.{e}." in n
                and ("down_proj" in n or ".w2." in n)
            )
            error = (weights[name].double() - expected).abs().max()
            assert error <= TOLERANCE * expected.abs().max(), name
            compared += 1
            if repair == "ridge":
                continue
            constants = next(
                weights[n] for n in weights
                if f"layers.{layer}." in n and weights[n].shape
                == (down.shape[0], down.shape[1]) and "constant" in n
            )
            error = (constants[e].double() - constant).abs().max()
            assert error <= TOLERANCE * expected.abs().max(), name
    assert compared >= 2


@pytest.mark.parametrize(
    ("variant", "repair"),
    [
        ("qwen3", "ridge"), ("qwen3", "joint"),
        ("deepseek", "ridge"), ("deepseek", "joint"),
        ("gpt_oss", "joint"), ("gemma", "joint"), ("lfm2", "ridge"),
        ("nemotron", "ridge"),
    ],
)
def test_padded_export_of_a_repaired_model(
    variant, repair, fettle, build_dir, ids, tmp_path
):
    folder = tiny_models.make(variant, tmp_path)
    trimmed = repaired(fettle, folder, ids, repair)
    exported = export(fettle, trimmed, "--format", "hf-padded")
    assert_close(
        transformers_logits(tiny_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, trimmed, ids),
    )


@pytest.mark.parametrize("method", ["m_smoe", "hc_smoe"])
@pytest.mark.parametrize(
    "variant",
    ["qwen3", "olmoe", "deepseek_v3", "gpt_oss", "gemma", "qwen_next",
     "nemotron"],
)
def test_merged_experts_load_in_transformers(
    variant, method, fettle, build_dir, ids, tmp_path
):
    folder = tiny_models.make(variant, tmp_path)
    expert_trace.write_tokenizer(folder)
    data = expert_trace.write_ids(tmp_path / "data.jsonl", ids)
    scores, merged = tmp_path / "scores", tmp_path / "merged"
    expert_trace.run(
        fettle, "analyze", folder, "--data", data, "--out", scores,
        "--scores", "frequency", "--tokens", 0,
    )
    expert_trace.run(
        fettle, "trim", folder, "--scores", scores, "--out", merged,
        "--score", "frequency", "--unit", "expert", "--scope", "layer",
        "--keep", 0.75, "--merge", method, "--data", data, "--tokens", 0,
    )
    exported = export(fettle, merged, "--format", "hf")
    assert_close(
        transformers_logits(tiny_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, merged, ids),
    )
