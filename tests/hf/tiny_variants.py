# SPDX-License-Identifier: Apache-2.0
"""Configurations of tiny models of every family, with the quirks of real
shapes; tiny_models.py gives them weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from tiny_ropes import LLAMA3, longrope, rope, yarn
from tiny_shapes import (
    AFMOE,
    DEEPSEEK,
    DEEPSEEK_V3,
    DOTS,
    ERNIE,
    GEMMA,
    GLM,
    GLM_LITE,
    GPT_OSS,
    GRANITE,
    GRANITE_HYBRID,
    LFM2,
    MELLUM,
    MINIMAX,
    MIXTRAL,
    NEMOTRON,
    OLMOE,
    QWEN2,
    QWEN3,
    QWEN35,
    QWEN_NEXT,
)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A configuration and how it is saved."""

    model_type: str
    config: dict[str, Any]
    dtype: torch.dtype = torch.float32
    fused: bool = False  # experts stacked in one tensor, as in memory
    max_shard_size: str = "5GB"
    v4_config: bool = False  # config.json as transformers 4 writes it


def _qwen3(**changes: Any) -> Variant:
    return _variant("qwen3_moe", QWEN3, changes)


def _qwen2(**changes: Any) -> Variant:
    return _variant("qwen2_moe", QWEN2, changes)


def _mixtral(**changes: Any) -> Variant:
    return _variant("mixtral", MIXTRAL, changes)


def _olmoe(**changes: Any) -> Variant:
    return _variant("olmoe", OLMOE, changes)


def _deepseek(**changes: Any) -> Variant:
    return _variant("deepseek_v2", DEEPSEEK, changes)


def _deepseek_v3(**changes: Any) -> Variant:
    return _variant("deepseek_v3", DEEPSEEK_V3, changes)


def _glm_lite(**changes: Any) -> Variant:
    return _variant("glm4_moe_lite", GLM_LITE, changes)


def _dots(**changes: Any) -> Variant:
    return _variant("dots1", DOTS, changes)


def _glm(**changes: Any) -> Variant:
    return _variant("glm4_moe", GLM, changes)


def _ernie(**changes: Any) -> Variant:
    return _variant("ernie4_5_moe", ERNIE, changes)


def _mellum(**changes: Any) -> Variant:
    return _variant("mellum", MELLUM, changes)


def _lfm2(**changes: Any) -> Variant:
    return _variant("lfm2_moe", LFM2, changes)


def _qwen_next(**changes: Any) -> Variant:
    return _variant("qwen3_next", QWEN_NEXT, changes)


def _qwen35(**changes: Any) -> Variant:
    return _variant("qwen3_5_moe_text", QWEN35, changes)


def _minimax(**changes: Any) -> Variant:
    return _variant("minimax_m2", MINIMAX, changes)


def _granite(**changes: Any) -> Variant:
    return _variant("granitemoe", GRANITE, changes)


def _granite_shared(**changes: Any) -> Variant:
    base = {**GRANITE, "shared_intermediate_size": 28}
    return _variant("granitemoeshared", base, changes)


def _granite_hybrid(**changes: Any) -> Variant:
    return _variant("granitemoehybrid", GRANITE_HYBRID, changes)


def _nemotron(**changes: Any) -> Variant:
    return _variant("nemotron_h", NEMOTRON, changes)


def _afmoe(**changes: Any) -> Variant:
    return _variant("afmoe", AFMOE, changes)


def _gemma(**changes: Any) -> Variant:
    return _variant("gemma4_text", GEMMA, changes)


def _gpt_oss(**changes: Any) -> Variant:
    return _variant("gpt_oss", GPT_OSS, changes)


def _variant(
    model_type: str, base: dict[str, Any], changes: dict[str, Any]
) -> Variant:
    names = {field.name for field in dataclasses.fields(Variant)}
    saving = {key: changes.pop(key) for key in names & changes.keys()}
    return Variant(model_type, {**base, **changes}, **saving)


VARIANTS: dict[str, Variant] = {
    "qwen3": _qwen3(),
    "qwen3_unnormalized_tied": _qwen3(
        norm_topk_prob=False, tie_word_embeddings=True
    ),
    "qwen3_multi_query_bias": _qwen3(
        num_key_value_heads=1, attention_bias=True
    ),
    "qwen3_sparse_step": _qwen3(num_hidden_layers=4, decoder_sparse_step=2),
    "qwen3_mlp_only": _qwen3(num_hidden_layers=4, mlp_only_layers=[0, 3]),
    "qwen3_window": _qwen3(use_sliding_window=True, sliding_window=5),
    "qwen3_odd": _qwen3(
        hidden_size=40,
        head_dim=10,
        num_attention_heads=3,
        num_key_value_heads=3,
        moe_intermediate_size=13,
        num_experts=5,
        num_experts_per_tok=5,
    ),
    "qwen3_gelu": _qwen3(hidden_act="gelu_pytorch_tanh", mlp_only_layers=[1]),
    "qwen3_top1": _qwen3(num_experts_per_tok=1, norm_topk_prob=False),
    "qwen3_linear": _qwen3(**rope("linear", factor=3.0)),
    "qwen3_yarn": _qwen3(**yarn()),
    "qwen3_yarn_plain": _qwen3(
        **yarn(beta_fast=8, beta_slow=2, truncate=False, attention_factor=0.8)
    ),
    "qwen3_dynamic": _qwen3(
        max_position_embeddings=16, **rope("dynamic", factor=2.0)
    ),
    "qwen3_longrope_short": _qwen3(**longrope(8, 48)),
    "qwen3_longrope_long": _qwen3(**longrope(8, 16)),
    "qwen3_llama3": _qwen3(**LLAMA3),
    "qwen3_bf16": _qwen3(dtype=torch.bfloat16),
    "qwen3_fp16": _qwen3(dtype=torch.float16),
    "qwen3_fused": _qwen3(fused=True),
    "qwen3_sharded": _qwen3(max_shard_size="60KB"),
    "qwen3_v4_config": _qwen3(v4_config=True, **yarn()),
    "qwen2": _qwen2(),
    "qwen2_normalized_no_bias": _qwen2(norm_topk_prob=True, qkv_bias=False),
    "qwen2_grouped_tied": _qwen2(
        num_key_value_heads=2, tie_word_embeddings=True
    ),
    "qwen2_sparse_step": _qwen2(num_hidden_layers=4, decoder_sparse_step=2),
    "qwen2_window": _qwen2(
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=2,
        num_hidden_layers=4,
    ),
    "qwen2_layer_types": _qwen2(
        use_sliding_window=True,
        sliding_window=6,
        layer_types=[
            "full_attention",
            "sliding_attention",
            "sliding_attention",
        ],
    ),
    "qwen2_fused_bf16": _qwen2(fused=True, dtype=torch.bfloat16),
    "qwen2_v4_config": _qwen2(v4_config=True),
    "mixtral": _mixtral(),
    "mixtral_window": _mixtral(sliding_window=7),
    "mixtral_head_dim": _mixtral(head_dim=12, num_local_experts=5),
    "mixtral_tied_linear": _mixtral(
        tie_word_embeddings=True, **rope("linear", factor=2.0)
    ),
    "mixtral_fused": _mixtral(fused=True),
    "mixtral_sharded_fp16": _mixtral(
        max_shard_size="80KB", dtype=torch.float16
    ),
    "mixtral_v4_config": _mixtral(v4_config=True),
    "olmoe": _olmoe(),
    "olmoe_clip": _olmoe(clip_qkv=0.9),
    "olmoe_grouped_bias": _olmoe(
        num_key_value_heads=2, attention_bias=True, norm_topk_prob=True
    ),
    "olmoe_tied_yarn": _olmoe(tie_word_embeddings=True, **yarn()),
    "olmoe_fused": _olmoe(fused=True),
    "olmoe_v4_config": _olmoe(v4_config=True, clip_qkv=1.5),
    "deepseek": _deepseek(),
    "deepseek_q_lora_bias": _deepseek(q_lora_rank=20, attention_bias=True),
    "deepseek_groups": _deepseek(
        topk_method="group_limited_greedy",
        n_group=4,
        topk_group=2,
        routed_scaling_factor=16.0,
        q_lora_rank=16,
    ),
    "deepseek_all_sparse_tied": _deepseek(
        first_k_dense_replace=0,
        tie_word_embeddings=True,
        n_shared_experts=1,
        routed_scaling_factor=2.5,
    ),
    "deepseek_yarn": _deepseek(**yarn(mscale=0.707, mscale_all_dim=0.707)),
    "deepseek_yarn_mscale": _deepseek(**yarn(mscale=1.3, mscale_all_dim=0.6)),
    "deepseek_linear": _deepseek(**rope("linear", factor=2.0)),
    "deepseek_fused_sharded": _deepseek(fused=True, max_shard_size="80KB"),
    "deepseek_v4_config": _deepseek(
        v4_config=True, **yarn(mscale=0.707, mscale_all_dim=0.707)
    ),
    "deepseek_v3": _deepseek_v3(),
    "deepseek_v3_half": _deepseek_v3(rope_interleave=False),
    "deepseek_v3_no_groups": _deepseek_v3(n_group=1, topk_group=1),
    "deepseek_v3_unnormalized_bias_bf16": _deepseek_v3(
        norm_topk_prob=False,
        attention_bias=True,
        q_lora_rank=20,
        dtype=torch.bfloat16,
    ),
    "deepseek_v3_v4_config": _deepseek_v3(
        v4_config=True,
        fused=True,
        **yarn(mscale=1.0, mscale_all_dim=1.0),
    ),
    "glm_lite": _glm_lite(),
    "glm_lite_types": _glm_lite(
        mlp_layer_types=["sparse", "dense", "sparse"], q_lora_rank=None
    ),
    "glm_lite_v4_config": _glm_lite(v4_config=True),
    "dots": _dots(),
    "dots_window_bias": _dots(
        sliding_window=5,
        max_window_layers=1,
        attention_bias=True,
        norm_topk_prob=True,
        n_group=2,
    ),
    "dots_v4_config": _dots(v4_config=True, n_shared_experts=1),
    "glm": _glm(),
    "glm_partial": _glm(partial_rotary_factor=0.25),
    "glm_norm_bf16": _glm(
        use_qk_norm=True, attention_bias=False, dtype=torch.bfloat16
    ),
    "glm_v4_config": _glm(v4_config=True, **yarn()),
    "ernie": _ernie(),
    "ernie_norm_min": _ernie(moe_norm_min=0.9),
    "ernie_interval_untied": _ernie(
        num_hidden_layers=4,
        moe_layer_interval=2,
        moe_layer_start_index=0,
        moe_num_shared_experts=0,
        tie_word_embeddings=False,
    ),
    "ernie_fused": _ernie(fused=True),
    "ernie_v4_config": _ernie(v4_config=True),
    "mellum": _mellum(),
    "mellum_types": _mellum(
        layer_types=[
            "sliding_attention",
            "full_attention",
            "sliding_attention",
        ],
        mlp_layer_types=["sparse", "dense", "sparse"],
        attention_bias=True,
        rope_parameters={
            "full_attention": yarn()["rope_parameters"],
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": 100.0,
            },
        },
    ),
    "mellum_sliding": _mellum(layer_types=["sliding_attention"] * 3),
    "gpt_oss": _gpt_oss(),
    "gpt_oss_truncate": _gpt_oss(**yarn(truncate=True)),
    "gpt_oss_types": _gpt_oss(
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        attention_bias=False,
        sliding_window=7,
        tie_word_embeddings=True,
    ),
    "gpt_oss_v4_config": _gpt_oss(
        v4_config=True, dtype=torch.bfloat16, num_hidden_layers=2
    ),
    "lfm2": _lfm2(),
    "lfm2_bias_untied": _lfm2(
        conv_bias=True,
        conv_L_cache=5,
        tie_word_embeddings=False,
        norm_topk_prob=False,
        routed_scaling_factor=1.8,
    ),
    "lfm2_no_expert_bias_v4_config": _lfm2(
        v4_config=True,
        fused=True,
        use_expert_bias=False,
        num_dense_layers=0,
        layer_types=["full_attention", "conv", "full_attention", "conv"],
    ),
    "qwen_next": _qwen_next(),
    "qwen_next_types_bias_tied": _qwen_next(
        layer_types=[
            "full_attention",
            "linear_attention",
            "full_attention",
            "linear_attention",
        ],
        attention_bias=True,
        tie_word_embeddings=True,
        norm_topk_prob=False,
        mlp_only_layers=[1],
    ),
    "qwen_next_v4_config": _qwen_next(v4_config=True, fused=True),
    "qwen35": _qwen35(fused=True),
    "qwen35_equal_heads_bf16": _qwen35(
        linear_num_key_heads=3,
        linear_num_value_heads=3,
        dtype=torch.bfloat16,
    ),
    "minimax": _minimax(),
    "minimax_fused": _minimax(fused=True),
    "minimax_v4_config": _minimax(v4_config=True, dtype=torch.bfloat16),
    "granite": _granite(),
    "granite_plain": _granite(
        embedding_multiplier=1.0,
        residual_multiplier=1.0,
        attention_multiplier=1.0,
        logits_scaling=1.0,
    ),
    "granite_fused_bias": _granite(
        fused=True, attention_bias=True, tie_word_embeddings=True
    ),
    "granite_shared": _granite_shared(),
    "granite_shared_none_bf16": _granite_shared(
        shared_intermediate_size=0, v4_config=True, dtype=torch.bfloat16
    ),
    "granite_hybrid": _granite_hybrid(),
    "granite_hybrid_rope_bias": _granite_hybrid(
        position_embedding_type="rope",
        mamba_proj_bias=True,
        mamba_conv_bias=False,
        mamba_d_conv=3,
        mamba_n_groups=1,
        time_step_limit=[0.2, 0.9],
    ),
    "granite_hybrid_v4_config_bf16": _granite_hybrid(
        v4_config=True,
        mamba_n_groups=1,
        fused=True,
        dtype=torch.bfloat16,
    ),
    "nemotron": _nemotron(),
    "nemotron_groups_bias": _nemotron(
        n_routed_experts=12,
        n_group=3,
        topk_group=2,
        norm_topk_prob=False,
        use_bias=True,
        use_conv_bias=False,
        conv_kernel=3,
        n_groups=3,
        time_step_min=0.4,
        layer_norm_epsilon=0.02,
        layers_block_type=["moe", "mlp", "linear_attention", "full_attention"],
    ),
    "nemotron_fused": _nemotron(fused=True, n_groups=1),
    "nemotron_v4_config_bf16": _nemotron(
        v4_config=True, dtype=torch.bfloat16
    ),
    "afmoe": _afmoe(),
    "afmoe_types": _afmoe(
        layer_types=["full_attention"] * 3,
        mup_enabled=False,
        num_dense_layers=0,
        attention_bias=True,
        tie_word_embeddings=True,
    ),
    "afmoe_v4_config": _afmoe(v4_config=True, num_shared_experts=1),
    "gemma": _gemma(),
    "gemma_own_values": _gemma(
        attention_k_eq_v=False,
        final_logit_softcapping=None,
        attention_bias=True,
        tie_word_embeddings=False,
        rope_parameters={
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.6,
                "factor": 2.0,
            },
            "sliding_attention": rope("linear", factor=2.0)[
                "rope_parameters"
            ],
        },
    ),
    "gemma_full_bf16": _gemma(
        layer_types=["full_attention"] * 3, dtype=torch.bfloat16
    ),
}
