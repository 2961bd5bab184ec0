# SPDX-License-Identifier: Apache-2.0
"""Configurations for make_random_model.py: a shape of each family for measuring
speed, and whole models in their real shape."""

# Eight layers of a hidden size of 1024, 32 experts of 512, 4 a token. The
# vocabulary is small: its head would hide the layers.
_COMMON = {
    "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16,
    "num_key_value_heads": 4, "vocab_size": 4096,
    "max_position_embeddings": 4096, "tie_word_embeddings": True,
    "eos_token_id": 2, "num_experts_per_tok": 4,
}
_WIDTH = {"intermediate_size": 2048, "moe_intermediate_size": 512}
# Latent attention as DeepSeek has it.
_LATENTS = {
    "num_key_value_heads": 16, "q_lora_rank": 512, "kv_lora_rank": 256,
    "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
}
_SPARSE = {"n_routed_experts": 32, "n_shared_experts": 1,
           "first_k_dense_replace": 1}
_DELTA_RULE = {
    "head_dim": 128, "num_attention_heads": 8, "num_key_value_heads": 2,
    "linear_num_key_heads": 8, "linear_num_value_heads": 16,
    "linear_key_head_dim": 64, "linear_value_head_dim": 64,
    "shared_expert_intermediate_size": 512, "num_experts": 32,
}
_MAMBA = {"mamba_n_heads": 32, "mamba_d_head": 64, "mamba_d_state": 64,
          "mamba_n_groups": 1, "mamba_expand": 2}

SPEED = {
    "qwen3_moe": {"head_dim": 64, "num_experts": 32, "num_experts_per_tok": 8,
                  **_WIDTH},
    "qwen2_moe": {"num_experts": 32, "shared_expert_intermediate_size": 1024,
                  **_WIDTH},
    "mixtral": {"num_local_experts": 8, "intermediate_size": 1024},
    "olmoe": {"num_experts": 32, "intermediate_size": 512},
    "deepseek_v2": {**_LATENTS, **_SPARSE, **_WIDTH},
    "deepseek_v3": {**_LATENTS, **_SPARSE, **_WIDTH, "n_group": 4,
                    "topk_group": 2},
    "glm4_moe_lite": {**_LATENTS, **_SPARSE, **_WIDTH},
    "glm4_moe": {**_SPARSE, **_WIDTH, "head_dim": 64},
    "dots1": {**_SPARSE, **_WIDTH, "head_dim": 64, "n_group": 1,
              "topk_group": 1},
    "ernie4_5_moe": {"moe_num_experts": 32, "moe_k": 4,
                     "moe_num_shared_experts": 1, **_WIDTH},
    "minimax_m2": {"num_local_experts": 32, "intermediate_size": 512,
                   "head_dim": 64},
    "mellum": {"num_experts": 32, "head_dim": 64, **_WIDTH},
    "qwen3_next": {**_DELTA_RULE, **_WIDTH},
    "qwen3_5_moe_text": {**_DELTA_RULE, **_WIDTH},
    "gpt_oss": {"num_local_experts": 32, "intermediate_size": 512,
                "head_dim": 64, "tie_word_embeddings": False},
    "gemma4_text": {
        "num_experts": 32, "top_k_experts": 4, "enable_moe_block": True,
        "head_dim": 64, "global_head_dim": 128, "attention_k_eq_v": True,
        "num_global_key_value_heads": 2, "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0, **_WIDTH},
    "granitemoe": {"num_local_experts": 32, "intermediate_size": 512},
    "granitemoeshared": {"num_local_experts": 32, "intermediate_size": 512,
                         "shared_intermediate_size": 1024},
    "granitemoehybrid": {
        "num_local_experts": 32, "intermediate_size": 512,
        "shared_intermediate_size": 1024, **_MAMBA,
        "layer_types": (["mamba"] * 3 + ["attention"]) * 2},
    "nemotron_h": {
        "n_routed_experts": 32, "n_shared_experts": 1,
        "moe_intermediate_size": 512,
        "moe_shared_expert_intermediate_size": 1024, "head_dim": 64,
        "mamba_num_heads": 32, "mamba_head_dim": 64, "ssm_state_size": 64,
        "n_groups": 4, "hybrid_override_pattern": "MEM*EMEM*E",
        "num_hidden_layers": 10, "tie_word_embeddings": False},
    "lfm2_moe": {
        "num_experts": 32, "num_dense_layers": 1, **_WIDTH,
        "layer_types": (["conv"] * 3 + ["full_attention"]) * 2},
    "afmoe": {"num_experts": 32, "num_dense_layers": 1, "head_dim": 64,
              **_WIDTH},
}

REAL = {
    "qwen3.6-35b-a3b": {
        "model_type": "qwen3_5_moe",
        "text_config": {
            "hidden_size": 2048, "num_hidden_layers": 40,
            "num_attention_heads": 16, "num_key_value_heads": 2,
            "head_dim": 256, "num_experts": 256, "num_experts_per_tok": 8,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "linear_num_key_heads": 16, "linear_num_value_heads": 32,
            "linear_key_head_dim": 128, "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4, "vocab_size": 248320,
            "max_position_embeddings": 262144, "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000000.0,
                "partial_rotary_factor": 0.25, "mrope_section": [11, 11, 10],
                "mrope_interleaved": True},
        },
        "vision_config": {"depth": 1, "hidden_size": 1152},
        "tie_word_embeddings": False,
    },
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe", "hidden_size": 2048,
        "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_hidden_layers": 48, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "norm_topk_prob": True,
        "vocab_size": 151936, "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
    },
    "qwen3-235b-a22b": {
        "model_type": "qwen3_moe", "hidden_size": 4096,
        "intermediate_size": 12288, "moe_intermediate_size": 1536,
        "num_hidden_layers": 94, "num_attention_heads": 64,
        "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "norm_topk_prob": True,
        "vocab_size": 151936, "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss", "hidden_size": 2880,
        "intermediate_size": 2880, "num_hidden_layers": 24,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "num_local_experts": 32, "num_experts_per_tok": 4,
        "vocab_size": 201088, "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
}


def config_of(name):
    """The configuration of a shape as config.json has it."""
    if name in REAL:
        return REAL[name]
    return {"model_type": name, **_COMMON, **SPEED[name]}
