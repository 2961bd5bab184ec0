# SPDX-License-Identifier: Apache-2.0
"""config.json as transformers 4 writes it, for tiny models of every family."""

from __future__ import annotations

import json
import math
import pathlib


_CORRECTED = {
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "num_nextn_predict_layers": 0,
}
ADDED = {
    "deepseek_v2": {
        "moe_layer_freq": 1,
        "scoring_func": "softmax",
        "aux_loss_alpha": 0.001,
    },
    "deepseek_v3": _CORRECTED,
    "glm4_moe_lite": _CORRECTED,
    "dots1": _CORRECTED,
    "glm4_moe": _CORRECTED,
}


def rewrite(config_file: pathlib.Path) -> None:
    """Keys as transformers 4 writes them."""
    config = json.loads(config_file.read_text())
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    if config["model_type"] == "nemotron_h":
        letters = {"linear_attention": "M", "full_attention": "*", "moe": "E"}
        types = config.pop("layers_block_type")
        config.update(
            hybrid_override_pattern="".join(letters.get(t, "-") for t in types),
            num_hidden_layers=len(types),
            time_step_limit=[0.0, math.inf],
        )
    else:
        rewrite_keys(config)
    config_file.write_text(json.dumps(config, indent=2))


def rewrite_keys(config: dict) -> None:
    """What families have in common, and some of them alone."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = (
        None if kind == "default" else {"type": kind, **rope}
    )
    if config["model_type"] in ("qwen3_moe", "qwen2_moe"):
        config["num_experts"] = config.pop(
            "num_local_experts", config.get("num_experts")
        )
        config.pop("layer_types", None)
    config.update(ADDED.get(config["model_type"], {}))
    if config["model_type"] == "glm4_moe_lite":
        config.pop("mlp_layer_types")
        config["first_k_dense_replace"] = 1
    if config["model_type"] == "gpt_oss":
        config.update(
            experts_per_token=config["num_experts_per_tok"],
            initial_context_length=16,
            swiglu_limit=7.0,
        )
    if config["model_type"] == "minimax_m2":
        config.update(
            scoring_func="sigmoid",
            use_routing_bias=True,
            use_qk_norm=True,
            qk_norm_type="per_layer",
            shared_intermediate_size=0,
            attn_type_list=[1] * config["num_hidden_layers"],
        )
    if config["model_type"] == "qwen3_next":
        config.pop("layer_types")
        config["full_attention_interval"] = 4
    if config["model_type"] == "lfm2_moe":
        config["tie_embedding"] = config.pop("tie_word_embeddings")
    if config["model_type"] == "granitemoehybrid":
        old = {"linear_attention": "mamba", "full_attention": "attention"}
        config["layer_types"] = [old[kind] for kind in config["layer_types"]]
        config["mamba_d_head"] = "auto"
    if config["model_type"] == "dots1":
        config["scoring_func"] = "noaux_tc"
        config.pop("layer_types")
