# SPDX-License-Identifier: Apache-2.0
"""Exports of packed models: in transformers, by the gguf package, and GPTQ's
words unpacked here. test_llama_cpp.py and test_gptqmodel.py load them with the
programs that they are for."""

from __future__ import annotations

import json
import pathlib

import expert_trace
import gguf_weights
import packed_weights
import pytest
import quantized_models
import safetensors.torch
import tiny_models
import torch
import transformers
from quantized_models import FAMILIES, export, make, quantize
from test_export import assert_close, transformers_logits, trim

SCHEMES = {
    "int4": ("--bits", "int4", "--group", 32),
    "int8 rows": ("--bits", "int8", "--group", 0),
    "int3": ("--bits", "int3", "--zeros", "no", "--group", 16),
    "int2": ("--bits", "int2", "--zeros", "no", "--group", 32),
}


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(6, 19)


def values(model: pathlib.Path) -> dict[str, torch.Tensor]:
    """What the weights of a packed model are, in fp32."""
    return {
        name: (w.values() if isinstance(w, packed_weights.Packed) else w).float()
        for name, w in packed_weights.load(model).items()
    }


def assert_same_weights(fettle, build_dir, packed, exported, ids) -> None:
    """What transformers unpacks from an export are the plain export's weights,
    to the bit, and it computes with them what Fettle does."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        exported,
        dtype="auto",
        attn_implementation="eager",
        experts_implementation="eager",
        quantization_config=transformers.CompressedTensorsConfig(
            dequantize=True
        ),
    )
    found = model.state_dict()
    plain = export(fettle, packed, "hf-padded")
    expected = tiny_models.load(plain).state_dict()
    # Beside them it keeps what the codes came with.
    assert set(found) >= set(expected)
    for name, weight in expected.items():
        inner = found[name]
        if inner.shape != weight.shape:  # filled up to whole groups
            assert inner.count_nonzero() == weight.count_nonzero(), name
            continue
        assert torch.equal(inner, weight), name
    assert_close(
        transformers_logits(model.eval(), ids),
        expert_trace.fettle_logits(build_dir, packed, ids),
    )


@pytest.mark.parametrize(
    "family, scheme",
    [(family, "int4") for family in (*FAMILIES, "nemotron_h")]
    + [("qwen3_moe", name) for name in SCHEMES if name != "int4"]
    + [("deepseek_v2", "int8 rows"), ("mixtral", "int3")],
)
def test_compressed_tensors_load_in_transformers(
    family, scheme, fettle, build_dir, ids, tmp_path
):
    model = make(family, tmp_path / "model")
    packed = quantize(fettle, model, *SCHEMES[scheme])
    exported = export(fettle, packed, "compressed-tensors")
    assert_same_weights(fettle, build_dir, packed, exported, ids)


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v2"])
def test_attention_may_have_zero_points_of_its_own(
    family, fettle, build_dir, ids, tmp_path
):
    model = make(family, tmp_path / "model")
    packed = quantize(
        fettle, model, "--bits", "int4", "--down", "int4", "--group", 32,
        "--attention", "int3", "--shared", "keep",
    )
    exported = export(fettle, packed, "compressed-tensors")
    config = json.loads((exported / "config.json").read_text())
    groups = config["quantization_config"]["config_groups"].values()
    assert {g["weights"]["symmetric"] for g in groups} == {True, False}
    assert_same_weights(fettle, build_dir, packed, exported, ids)


@pytest.mark.parametrize(
    "scheme",
    [
        ("--bits", "ternary", "--group", 32),
        ("--bits", "int2", "--group", 32),
        ("--bits", "int4", "--down", "int8", "--group", 32),
        ("--bits", "int4", "--group", 24),
    ],
    ids=["ternary", "zeros", "mixed", "groups"],
)
def test_recoded_weights_have_the_same_values(
    scheme, fettle, build_dir, ids, tmp_path
):
    model = make("qwen2_moe", tmp_path / "model")
    packed = quantize(fettle, model, *scheme)
    exported = export(fettle, packed, "compressed-tensors", "--recode")
    assert_same_weights(fettle, build_dir, packed, exported, ids)


@pytest.fixture
def ragged(request, fettle, ids, tmp_path) -> pathlib.Path:
    """A model whose experts were trimmed to widths of their own."""
    model = make(request.param, tmp_path / "model")
    data = expert_trace.write_ids(tmp_path / "data.jsonl", ids)
    expert_trace.run(
        fettle, "analyze", model, "--data", data, "--out", tmp_path / "scores"
    )
    return trim(fettle, model, keep=0.6)


@pytest.mark.parametrize("form", ["compressed-tensors", "gguf", "gptq"])
@pytest.mark.parametrize("ragged", ["qwen3_moe", "deepseek_v2"], indirect=True)
def test_trimmed_experts_are_filled_up(
    ragged, form, fettle, build_dir, ids
):
    packed = quantize(fettle, ragged, "--group", 32)
    exported = export(fettle, packed, form)
    if form == "gguf":
        found = gguf_weights.File(exported / "model.gguf").weights
    elif form == "gptq":
        found = gptq_values(exported)
    else:
        assert_close(
            transformers_logits(tiny_models.load(exported), ids),
            expert_trace.fettle_logits(build_dir, packed, ids),
        )
        return
    for name, expected in values(packed).items():
        weight = found[name]
        inner = weight[tuple(slice(0, size) for size in expected.shape)]
        assert torch.equal(inner, expected), name
        assert weight.count_nonzero() == expected.count_nonzero(), name


def test_scales_are_of_the_type_that_is_loaded(fettle, tmp_path):
    model = make("qwen3_moe", tmp_path / "model")
    plain = quantized_models.export(fettle, model, "hf", "--dtype", "bfloat16")
    packed = quantize(fettle, plain, "--group", 32)
    exported = export(fettle, packed, "compressed-tensors")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        exported,
        dtype="auto",
        quantization_config=transformers.CompressedTensorsConfig(
            dequantize=True
        ),
    )
    state = loaded.state_dict()
    name = "model.layers.1.self_attn.q_proj.weight"
    assert state[name].dtype == torch.bfloat16
    assert torch.equal(state[name], values(packed)[name].bfloat16())


# ---- GPTQ: its words, unpacked by the description in gptq_layout.cpp.
def _stream(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [n, w] to codes [n, 32 w / bits], bit by bit."""
    every = (words.long()[:, :, None] >> torch.arange(32)) & 1
    codes = every.flatten(1).view(words.shape[0], -1, bits)
    return (codes << torch.arange(bits)).sum(-1)


def gptq_values(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    config = json.loads((folder / "quantize_config.json").read_text())
    less = {"gptq": 1, "gptq_v2": 0}[config["checkpoint_format"]]
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(".qweight"):
            module = name.removesuffix(".qweight")
            groups = tensors[module + ".g_idx"].long()
            bits = 32 * tensor.shape[0] // len(groups)
            codes = _stream(tensor.t().contiguous(), bits).t()
            zeros = _stream(tensors[module + ".qzeros"], bits) + less
            scales = tensors[module + ".scales"].float()
            weight = (codes - zeros[groups]).float() * scales[groups]
            found[module + ".weight"] = weight.t()
        elif not name.endswith((".qzeros", ".scales", ".g_idx")):
            found[name] = tensor.float()
    return found


def _gptq_name(name: str) -> str:
    """Mixtral's modules, as GPTQModel names them."""
    for stock, own in (
        ("block_sparse_moe", "mlp"),
        (".w1.", ".gate_proj."),
        (".w3.", ".up_proj."),
        (".w2.", ".down_proj."),
    ):
        name = name.replace(stock, own)
    return name


@pytest.mark.parametrize(
    "family, scheme",
    [(family, ("--bits", "int4", "--group", 32)) for family in FAMILIES]
    + [
        ("qwen2_moe", ("--bits", "int4", "--down", "int8", "--zeros", "yes")),
        ("mixtral", ("--bits", "int3", "--group", 16, "--attention", "keep")),
        ("olmoe", ("--bits", "int2", "--group", 32)),
    ],
)
def test_gptq_words_are_the_values(family, scheme, fettle, tmp_path):
    model = make(family, tmp_path / "model")
    packed = quantize(fettle, model, *scheme)
    found = gptq_values(export(fettle, packed, "gptq"))
    expected = values(packed)
    assert {_gptq_name(name) for name in expected} == set(found)
    for name, weight in expected.items():
        assert torch.equal(found[_gptq_name(name)], weight), name


# ---- GGUF by the package's own dequantizer.
def assert_gguf(packed: pathlib.Path, exported: pathlib.Path) -> set[str]:
    """Every value is the packed model's; returns the types of the matrices."""
    file = gguf_weights.File(exported / "model.gguf")
    expected = values(packed)
    for name, weight in expected.items():
        assert torch.equal(
            file.weights[name].flatten(), weight.flatten()
        ), name
    return {kind for kind in file.types.values() if kind != "F32"}


@pytest.mark.parametrize(
    "family, scheme, types",
    [
        (family, ("--bits", "int4", "--group", 32), {"Q4_0", "Q8_0"})
        for family in FAMILIES
    ]
    + [
        (
            "deepseek_v2",
            ("--bits", "int4", "--group", 32, "--zeros", "yes", "--attention",
             "int3", "--shared", "int2", "--dense", "int2"),
            {"Q5_0", "Q4_0"},
        ),
        ("mixtral", ("--bits", "int8", "--embeddings", "int8"), {"Q8_0"}),
        ("qwen2_moe", ("--bits", "ternary", "--shared", "int4"), {"Q4_0", "Q8_0"}),
    ],
)
def test_gguf_has_every_value(family, scheme, types, fettle, tmp_path):
    model = make(family, tmp_path / "model")
    packed = quantize(fettle, model, *scheme)
    assert assert_gguf(packed, export(fettle, packed, "gguf")) == types


@pytest.mark.parametrize(
    "scheme, kind",
    [
        (("--bits", "ternary"), "TQ2_0"),
        (("--bits", "int2"), "Q2_K"),
        (("--bits", "int2", "--zeros", "no"), "Q2_K"),
        (("--bits", "int3", "--zeros", "no"), "Q3_K"),
        (("--bits", "int4", "--zeros", "yes"), "Q4_K"),
        (("--bits", "int4", "--zeros", "yes", "--group", 256), "Q4_K"),
    ],
    ids=["TQ2_0", "Q2_K", "Q2_K symmetric", "Q3_K", "Q4_K", "Q4_K groups"],
)
def test_gguf_blocks_of_256(scheme, kind, fettle, tmp_path):
    model = make(
        "qwen3_moe", tmp_path / "model",
        hidden_size=512 if "--group" in scheme else 256,
        moe_intermediate_size=256, num_experts=3, num_hidden_layers=1,
    )
    group = () if "--group" in scheme else ("--group", 0)
    packed = quantize(fettle, model, *scheme, *group, "--attention", "keep")
    assert assert_gguf(packed, export(fettle, packed, "gguf")) == {kind}


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_models_become_gguf_too(family, fettle, tmp_path):
    model = make(family, tmp_path / "model")
    assert assert_gguf(model, export(fettle, model, "gguf")) == set()


def test_the_nearest_is_within_half_a_step(fettle, tmp_path):
    model = make("qwen3_moe", tmp_path / "model")
    packed = quantize(
        fettle, model, "--bits", "int8", "--zeros", "yes", "--group", 16
    )
    exported = export(fettle, packed, "gguf", "--nearest")
    found = gguf_weights.File(exported / "model.gguf").weights
    for name, weight in values(packed).items():
        step = weight.abs().max() / 127
        assert (found[name] - weight).abs().max() <= 0.51 * step, name


def test_the_vocabulary_is_the_tokenizers(fettle, tmp_path):
    model = make("qwen3_moe", tmp_path / "model")
    keys = gguf_weights.File(
        export(fettle, model, "gguf") / "model.gguf"
    ).keys
    vocab = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = keys["tokenizer.ggml.tokens"]
    assert len(tokens) == expert_trace.VOCAB
    assert {token: i for i, token in enumerate(tokens)} == vocab
    assert keys["tokenizer.ggml.pre"] == "gpt-2"
