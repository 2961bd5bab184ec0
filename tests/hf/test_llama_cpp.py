# SPDX-License-Identifier: Apache-2.0
"""GGUF files in llama.cpp itself. Skipped where the package llama-cpp-python is
not installed; docs/export-formats.md has the figures of a run."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import unicodedata

import expert_trace
import pytest
import quantized_models
import test_tokenizer
import tiny_models
import tokenizers
import torch
from mixed_text import mixed_strings
from test_export import TOLERANCE, assert_close

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed"
)

# A trained model to round: the bundled one, or that of docs/export-formats.md.
MODEL = pathlib.Path(
    os.environ.get("FETTLE_MODEL", pathlib.Path(__file__).parents[2] / "demo" / "model")
)
# What llama.cpp computes otherwise: see gguf_metadata.cpp.
REFUSED = {
    "qwen3_unnormalized_tied": "norm_topk_prob",
    "qwen3_multi_query_bias": "attention_bias",
    "qwen3_sparse_step": "a layer is dense",
    "qwen3_mlp_only": "a layer is dense",
    "qwen3_window": "sliding_window",
    "qwen3_top1": "norm_topk_prob",
    "qwen3_yarn_plain": "truncate",
    "qwen3_dynamic": "dynamic",
    "qwen3_longrope_short": "longrope",
    "qwen3_longrope_long": "longrope",
    "qwen3_llama3": "llama3",
    "qwen2_normalized_no_bias": "norm_topk_prob",
    "qwen2_sparse_step": "a layer is dense",
    "qwen2_window": "sliding_window",
    "qwen2_layer_types": "sliding_window",
    "mixtral_window": "sliding_window",
    "olmoe_clip": "clip_qkv",
    "olmoe_grouped_bias": "attention_bias",
    "olmoe_v4_config": "clip_qkv",
    "deepseek_q_lora_bias": "attention_bias",
    "deepseek_groups": "in groups",
    "deepseek_yarn_mscale": "mscale",
    "deepseek_linear": "linear",
    "deepseek_v3_half": "rope_interleave",
    "deepseek_v3_unnormalized_bias_bf16": "attention_bias",
    "glm_lite": "rms_norm_eps",
    "glm_lite_types": "rms_norm_eps",
    "glm_lite_v4_config": "rms_norm_eps",
    "dots_window_bias": "attention_bias",
    "dots": "num_key_value_heads",
    "dots_v4_config": "num_key_value_heads",
    "glm_norm_bf16": "attention_bias",
    "ernie_norm_min": "moe_norm_min",
    "ernie_interval_untied": "a layer is dense",
    "gpt_oss": "truncate",
    "gpt_oss_types": "attention_bias",
    "gpt_oss_v4_config": "truncate",
    "lfm2_bias_untied": "norm_topk_prob",
    "lfm2_no_expert_bias_v4_config": "use_expert_bias",
    "mellum_types": "attention_bias",
    "qwen3_gelu": "a layer is dense",
    "qwen_next": "linear_value_head_dim",
    "qwen_next_types_bias_tied": "attention_bias",
    "qwen_next_v4_config": "linear_value_head_dim",
    "nemotron": "a layer is dense",
    "nemotron_groups_bias": "a layer is dense",
    "nemotron_fused": "a layer is dense",
    "nemotron_v4_config_bf16": "a layer is dense",
    "granite_fused_bias": "attention_bias",
    "granite_hybrid": "mamba_n_groups",
    "granite_hybrid_rope_bias": "mamba_proj_bias",
    "afmoe": "not each fourth layer",
    "afmoe_types": "attention_bias",
    "afmoe_v4_config": "not each fourth layer",
    "gemma_own_values": "attention_bias",
    "gemma_full_bf16": "no layer has a window",
}


# What llama.cpp does otherwise and no loaded model shows: it takes a sum of
# chosen weights below this for this.
LEAST_SUM = 6.103515625e-5
# Its GELU is a table of float16.
TOLERANCES = {"gemma": 5e-4}


def llama_logits(file: pathlib.Path, ids: list[int]) -> torch.Tensor:
    model = llama_cpp.Llama(
        str(file),
        n_ctx=max(64, len(ids)),
        n_batch=512,
        n_threads=1,
        logits_all=True,
        verbose=False,
        # Keys and values in fp32, as everything else.
        type_k=0,
        type_v=0,
        flash_attn=False,
    )
    try:
        model.eval(ids)
        return torch.tensor(model.scores[: len(ids)].copy())
    finally:
        model.close()


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_plain_models_compute_the_same(name, fettle, build_dir, tmp_path):
    model = tiny_models.make(name, tmp_path)
    expert_trace.write_tokenizer(model)
    config = json.loads((model / "config.json").read_text())
    config.update(bos_token_id=0, eos_token_id=1)
    if config["model_type"] == "ernie4_5_moe" and name not in REFUSED:
        config["moe_norm_min"] = LEAST_SUM
    (model / "config.json").write_text(json.dumps(config))
    command = [fettle, "export", model, "--out", tmp_path / "out", "--format",
               "gguf", "--dtype", "float32"]
    if name in REFUSED:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and REFUSED[name] in done.stderr
        return
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ids = expert_trace.random_ids(1, 40)
    assert_close(
        llama_logits(tmp_path / "out" / "model.gguf", ids[0].tolist()),
        expert_trace.fettle_logits(build_dir, model, ids),
        TOLERANCES.get(name, TOLERANCE),
    )


def divergence(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Mean KL of the two programs' next tokens, in nats."""
    a, b = expected.log_softmax(-1), found.log_softmax(-1)
    return (a.exp() * (a - b)).sum(-1).mean().item()


# Products with packed weights round the activations to 8 bits.
@pytest.mark.parametrize(
    "scheme",
    [
        ("--bits", "int8"),
        ("--bits", "int4"),
        ("--bits", "int4", "--zeros", "yes", "--attention", "int4"),
        ("--bits", "int4", "--zeros", "yes", "--attention", "int4",
         "--group", 0),
        ("--bits", "int3", "--zeros", "no", "--group", 0),
        ("--bits", "int2", "--group", 0),
        ("--bits", "ternary", "--group", 0),
    ],
    ids=lambda scheme: " ".join(map(str, scheme[1:])),
)
def test_packed_models_say_nearly_the_same(
    scheme, fettle, build_dir, tmp_path, record_property
):
    packed = tmp_path / "packed"
    expert_trace.run(
        fettle, "quant", MODEL, "--out", packed, "--method", "rtn", *scheme
    )
    exported = quantized_models.export(fettle, packed, "gguf")
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    ids = tokenizer.encode(text).ids[:384]
    found = llama_logits(exported / "model.gguf", ids)
    expected = expert_trace.fettle_logits(
        build_dir, packed, torch.tensor([ids])
    )
    kl = divergence(found, expected)
    size = (exported / "model.gguf").stat().st_size
    same = (found.argmax(-1) == expected.argmax(-1)).float().mean().item()
    largest = (found - expected).abs().max().item()
    print(
        f"\n{' '.join(map(str, scheme[1:]))}: {size / 1e6:.1f} MB, largest "
        f"difference {largest:.2f} of {expected.abs().max():.1f}, KL {kl:.1e}, "
        f"same first token {same:.3f}"
    )
    assert kl < 6e-3
    assert same > 0.95


# DeepSeek's, code point by code point: an editor that composes characters
# would spoil it.
LETTERS = (
    r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf"
    r"\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d"
    r"\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    r"\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5"
    r"\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    r"\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    r"\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    r"\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    r"\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    r"\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d"
    r"\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
    r"\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    r"\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    r"\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    r"\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    r"\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    r"\U0001e900-\U0001e943]+"
)


def deepseek() -> tokenizers.Tokenizer:
    file = json.loads(test_tokenizer.deepseek().to_str())
    letters = LETTERS.encode("ascii").decode("raw_unicode_escape")
    file["pre_tokenizer"]["pretokenizers"][1]["pattern"]["Regex"] = letters
    return tokenizers.Tokenizer.from_str(json.dumps(file))


def sentence_pieces() -> tokenizers.Tokenizer:
    """Merges as they are made from a SentencePiece model: of each piece, in
    the order of scores, all that make it."""
    file = json.loads(test_tokenizer.llama_legacy().to_str())
    vocab = file["model"]["vocab"]
    merges, seen = [], set()
    for merge in file["model"]["merges"]:
        piece = "".join(merge if isinstance(merge, list) else merge.split(" "))
        if piece in seen:
            continue
        seen.add(piece)
        merges += [
            [piece[:cut], piece[cut:]]
            for cut in range(1, len(piece))
            if piece[:cut] in vocab and piece[cut:] in vocab
        ]
    file["model"]["merges"] = merges
    for token in file["added_tokens"]:
        token["normalized"] = False
    return tokenizers.Tokenizer.from_str(json.dumps(file))


@pytest.mark.parametrize(
    "family",
    [
        test_tokenizer.qwen,
        test_tokenizer.neox,
        deepseek,
        sentence_pieces,
    ],
    ids=lambda family: family.__name__,
)
def test_texts_become_the_same_tokens(family, fettle, tmp_path):
    tokenizer = family()
    rows = tokenizer.get_vocab_size() + 3
    around = tokenizer.encode("").ids
    model = quantized_models.make(
        "qwen3_moe",
        tmp_path / "model",
        vocab_size=rows,
        bos_token_id=around[0] if around else 0,
        eos_token_id=around[-1] if around else 1,
    )
    tokenizer.save(str(model / "tokenizer.json"))
    exported = quantized_models.export(fettle, model, "gguf")
    llama = llama_cpp.Llama(
        str(exported / "model.gguf"), vocab_only=True, verbose=False
    )
    wrong = []
    added = tokenizer.get_added_tokens_decoder().values()
    strings = mixed_strings(11, 1500, [token.content for token in added])
    # llama.cpp takes text as it comes, whatever the normalizer says of NFC.
    texts = [
        text
        for text in (s.decode(errors="replace") for s in strings)
        if text and unicodedata.is_normalized("NFC", text)
    ]
    for text in texts:
        expected = tokenizer.encode(text).ids
        found = llama.tokenize(text.encode(), add_bos=True, special=True)
        if found != expected:
            wrong.append((text, found, expected))
    llama.close()
    print(f"\n{family.__name__}: {len(wrong)} of {len(texts)} differ")
    # White space that is no ASCII is not all the same to both in DeepSeek's
    # rule.
    allowed = 3 if family is deepseek else 0
    assert len(wrong) <= allowed, wrong[:3]
