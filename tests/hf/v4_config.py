# SPDX-License-Identifier: Apache-2.0
"""config.json as transformers 4 writes it, for tiny models of every family."""

from __future__ import annotations

import json
import pathlib


def rewrite(config_file: pathlib.Path) -> None:
    """Keys as transformers 4 writes them."""
    config = json.loads(config_file.read_text())
    config["torch_dtype"] = config.pop("dtype")
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
    if config["model_type"] == "deepseek_v2":
        config.update(
            moe_layer_freq=1, scoring_func="softmax", aux_loss_alpha=0.001
        )
    if config["model_type"] in (
        "deepseek_v3", "glm4_moe_lite", "dots1", "glm4_moe",
    ):
        config.update(
            moe_layer_freq=1,
            scoring_func="sigmoid",
            topk_method="noaux_tc",
            num_nextn_predict_layers=0,
        )
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
    if config["model_type"] == "dots1":
        config["scoring_func"] = "noaux_tc"
        config.pop("layer_types")
    config["transformers_version"] = "4.46.0"
    config_file.write_text(json.dumps(config, indent=2))
