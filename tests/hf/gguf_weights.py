# SPDX-License-Identifier: Apache-2.0
"""A GGUF file's weights by the names that checkpoints have, dequantized by the
gguf package."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import gguf
import numpy as np
import torch

TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MIXTRAL = {"gate": "w1", "up": "w3", "down": "w2"}


def _name(name: str, arch: str) -> str:
    """Of anything but stacked experts."""
    stem, _, kind = name.rpartition(".")
    match = re.fullmatch(r"blk\.(\d+)\.(.*)", stem)
    if not match:
        return f"{TOP[stem]}.{kind}"
    layer, part = match.groups()
    shared = re.fullmatch(r"ffn_(gate|up|down)_shexp", part)
    if shared:
        owner = "shared_experts" if arch == "deepseek2" else "shared_expert"
        part = f"mlp.{owner}.{shared[1]}_proj"
    elif arch == "llama" and part == "ffn_gate_inp":
        part = "block_sparse_moe.gate"
    else:
        part = LAYER[part]
    return f"model.layers.{layer}.{part}.{kind}"


def _experts(name: str, arch: str) -> str | None:
    match = re.fullmatch(r"blk\.(\d+)\.ffn_(gate|up|down)_exps\.weight", name)
    if not match:
        return None
    layer, part = match.groups()
    if arch == "llama":
        rest = f"block_sparse_moe.experts.{{}}.{MIXTRAL[part]}.weight"
    else:
        rest = f"mlp.experts.{{}}.{part}_proj.weight"
    return f"model.layers.{layer}.{rest}"


def _unpaired(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows whose rotary pairs are neighbours, half a head apart again."""
    rows, cols = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, cols)
    return pairs.transpose(1, 2).reshape(rows, cols)


class File:
    """Keys, types and weights of a file."""

    def __init__(self, path: pathlib.Path) -> None:
        reader = gguf.GGUFReader(path)
        self.keys: dict[str, Any] = {
            key: field.contents() for key, field in reader.fields.items()
        }
        self.types = {t.name: t.tensor_type.name for t in reader.tensors}
        self.weights: dict[str, torch.Tensor] = {}
        arch = self.keys["general.architecture"]
        for tensor in reader.tensors:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            weight = torch.from_numpy(np.array(values, dtype=np.float32))
            pattern = _experts(tensor.name, arch)
            if pattern:
                for expert, one in enumerate(weight):
                    self.weights[pattern.format(expert)] = one
                continue
            if arch == "llama" and "attn_q.w" in tensor.name:
                weight = _unpaired(weight, self.keys["llama.attention.head_count"])
            if arch == "llama" and "attn_k.w" in tensor.name:
                weight = _unpaired(
                    weight, self.keys["llama.attention.head_count_kv"]
                )
            self.weights[_name(tensor.name, arch)] = weight
