# SPDX-License-Identifier: Apache-2.0
"""Small configurations of every family, from which tiny_models.py makes its
variants."""

MAX_POSITION = 64

QWEN3 = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_POSITION,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}

QWEN2 = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": MAX_POSITION,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 36,
    "num_experts": 6,
    "num_experts_per_tok": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}

MIXTRAL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITION,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}

OLMOE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": MAX_POSITION,
    "num_experts": 8,
    "num_experts_per_tok": 4,
    "pad_token_id": None,
    "eos_token_id": 1,
}

DEEPSEEK = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITION,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 24,
    "q_lora_rank": None,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "n_group": 1,
    "topk_group": 1,
}

DEEPSEEK_V3 = {
    **DEEPSEEK,
    "num_key_value_heads": 4,
    "n_routed_experts": 12,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 1.7,
    "num_mtp_layers": 0,
}

GLM_LITE = {
    **DEEPSEEK,
    "num_key_value_heads": 4,
    "q_lora_rank": 20,
    "n_shared_experts": 1,
    # Far from that of the latents' norms.
    "rms_norm_eps": 0.05,
}
GLM_LITE.pop("first_k_dense_replace")

DOTS = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITION,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "routed_scaling_factor": 2.5,
}

GLM = {**DOTS, "head_dim": 16, "attention_bias": True, "num_mtp_layers": 0}

ERNIE = {
    "pad_token_id": None,  # a row of embeddings without gradient otherwise
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITION,
    "moe_num_experts": 8,
    "moe_k": 3,
    "moe_num_shared_experts": 2,
    "moe_intermediate_size": 20,
}

MELLUM = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_POSITION,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "sliding_window": 6,
}

LFM2 = {
    "pad_token_id": None,  # a row of embeddings without gradient otherwise
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITION,
    "moe_intermediate_size": 20,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_dense_layers": 1,
    "layer_types": ["conv", "conv", "full_attention", "conv"],
}

QWEN_NEXT = {
    **QWEN3,
    "num_hidden_layers": 4,
    "shared_expert_intermediate_size": 20,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.25,
    },
}
# Key heads as wide as value heads; a wider convolution.
QWEN35 = {
    **QWEN_NEXT,
    "head_dim": 20,
    "linear_value_head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_conv_kernel_dim": 3,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 2, 1],
        "mrope_interleaved": True,
    },
}
QWEN35.pop("intermediate_size")
QWEN35.pop("norm_topk_prob")

MINIMAX = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_POSITION,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "partial_rotary_factor": 0.5,
    "bos_token_id": None,
    "eos_token_id": None,
}

GRANITE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITION,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.15,
    "logits_scaling": 2.5,
}

GRANITE_HYBRID = {
    **GRANITE,
    "num_hidden_layers": 3,
    "shared_intermediate_size": 28,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 6,
    "mamba_n_groups": 2,
    "mamba_d_state": 12,
    "mamba_d_head": 16,
    "mamba_chunk_size": 16,
}

NEMOTRON = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 40,
    "layers_block_type": [
        "linear_attention",
        "moe",
        "full_attention",
        "mlp",
        "linear_attention",
        "moe",
    ],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_POSITION,
    "ssm_state_size": 12,
    # Together as wide as no multiple of the hidden size.
    "mamba_num_heads": 6,
    "mamba_head_dim": 12,
    "n_groups": 2,
    "chunk_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "moe_shared_expert_intermediate_size": 28,
    "routed_scaling_factor": 2.5,
    "pad_token_id": None,
}

AFMOE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_POSITION,
    "moe_intermediate_size": 20,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_shared_experts": 2,
    "route_scale": 2.1,
    "global_attn_every_n_layers": 2,
    "sliding_window": 6,
    "mup_enabled": True,
}

GEMMA = {
    "pad_token_id": None,  # a row of embeddings without gradient otherwise
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 24,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "max_position_embeddings": MAX_POSITION,
    "sliding_window": 6,
    "layer_types": [
        "sliding_attention",
        "full_attention",
        "full_attention",
    ],
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 20,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 12.0,
}

GPT_OSS = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_POSITION,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    # Shorter than the tests' sequences by an odd number, and longer than one.
    "sliding_window": 13,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "truncate": False,
    },
}
