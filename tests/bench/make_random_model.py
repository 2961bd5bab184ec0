# SPDX-License-Identifier: Apache-2.0
"""Writes a Qwen3-MoE folder of random bf16 weights of any size, shard by shard,
for measuring speed and memory.

    python tests/bench/make_random_model.py OUT --hidden 1024 --experts 64
        --width 512 --layers 4 [--top-k 8] [--vocab 4096] [--tokenizer MODEL]
"""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file


def layer_tensors(options, layer, generator):
    hidden, heads, head = options.hidden, options.hidden // 64, 64

    def weight(*shape):
        return (torch.randn(shape, generator=generator)
                * (shape[-1] ** -0.5)).bfloat16()

    prefix = f"model.layers.{layer}."
    tensors = {
        prefix + "input_layernorm.weight": torch.ones(hidden).bfloat16(),
        prefix + "post_attention_layernorm.weight": torch.ones(hidden).bfloat16(),
        prefix + "self_attn.q_norm.weight": torch.ones(head).bfloat16(),
        prefix + "self_attn.k_norm.weight": torch.ones(head).bfloat16(),
        prefix + "self_attn.q_proj.weight": weight(heads * head, hidden),
        prefix + "self_attn.k_proj.weight": weight(heads // 2 * head, hidden),
        prefix + "self_attn.v_proj.weight": weight(heads // 2 * head, hidden),
        prefix + "self_attn.o_proj.weight": weight(hidden, heads * head),
        prefix + "mlp.gate.weight": weight(options.experts, hidden),
    }
    for e in range(options.experts):
        expert = f"{prefix}mlp.experts.{e}."
        tensors[expert + "gate_proj.weight"] = weight(options.width, hidden)
        tensors[expert + "up_proj.weight"] = weight(options.width, hidden)
        tensors[expert + "down_proj.weight"] = weight(hidden, options.width)
    return tensors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    index, total = {}, 0
    shards = options.layers + 1
    for shard in range(shards):
        if shard < options.layers:
            tensors = layer_tensors(options, shard, generator)
        else:
            tensors = {
                "model.embed_tokens.weight": (torch.randn(
                    options.vocab, options.hidden, generator=generator)
                    * 0.05).bfloat16(),
                "model.norm.weight": torch.ones(options.hidden).bfloat16(),
            }
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file(tensors, options.out / name, metadata={"format": "pt"})
        for key, tensor in tensors.items():
            index[key] = name
            total += tensor.nbytes
    (options.out / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": index}))
    (options.out / "config.json").write_text(json.dumps({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "hidden_size": options.hidden, "num_hidden_layers": options.layers,
        "num_attention_heads": options.hidden // 64,
        "num_key_value_heads": options.hidden // 128, "head_dim": 64,
        "intermediate_size": options.width,
        "moe_intermediate_size": options.width,
        "num_local_experts": options.experts,
        "num_experts_per_tok": options.top_k, "norm_topk_prob": True,
        "vocab_size": options.vocab, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "dtype": "bfloat16",
        "hidden_act": "silu", "eos_token_id": 2, "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    }, indent=2))
    if options.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(options.tokenizer / name, options.out / name)


if __name__ == "__main__":
    main()
