# SPDX-License-Identifier: Apache-2.0
"""Tiny models of sizes that blocks and words divide, and their packed forms."""

from __future__ import annotations

import pathlib
from typing import Any

import expert_trace
import tiny_models
import tiny_shapes

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen3_moe": (
        tiny_shapes.QWEN3,
        {"moe_intermediate_size": 32, "num_attention_heads": 4},
    ),
    "qwen2_moe": (
        tiny_shapes.QWEN2,
        {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
    ),
    "mixtral": (tiny_shapes.MIXTRAL, {"intermediate_size": 64}),
    "olmoe": (tiny_shapes.OLMOE, {"intermediate_size": 32}),
    "deepseek_v2": (
        tiny_shapes.DEEPSEEK,
        {
            "moe_intermediate_size": 32,
            "intermediate_size": 96,
            "kv_lora_rank": 32,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 16,
            "v_head_dim": 16,
        },
    ),
}
FAMILIES = tuple(SIZES)
# Experts in stacks alone: not for the formats of single ones.
SIZES["gpt_oss"] = (tiny_shapes.GPT_OSS, {"intermediate_size": 64})
# In llama.cpp by other names.
SIZES["nemotron_h"] = (
    tiny_shapes.NEMOTRON,
    {
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 64,
        "intermediate_size": 64,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
    },
)


def make(family: str, folder: pathlib.Path, **changes: Any) -> pathlib.Path:
    """A model of `family` with a tokenizer, in `folder`."""
    base, sizes = SIZES[family]
    config = {
        **base,
        "hidden_size": 64,
        **sizes,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **changes,
    }
    tiny_models.write(tiny_models.Variant(family, config), folder)
    expert_trace.write_tokenizer(folder)
    return folder


def quantize(
    fettle: pathlib.Path, model: pathlib.Path, *options: Any
) -> pathlib.Path:
    """`model` packed by rounding, beside it."""
    out = model.parent / "packed"
    expert_trace.run(
        fettle, "quant", model, "--out", out, "--method", "rtn", *options
    )
    return out


def export(
    fettle: pathlib.Path, model: pathlib.Path, form: str, *options: Any
) -> pathlib.Path:
    """`model` in the format `form`, beside it."""
    out = model.parent / form
    expert_trace.run(
        fettle, "export", model, "--out", out, "--format", form, *options
    )
    return out
