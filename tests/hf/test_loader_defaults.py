# SPDX-License-Identifier: Apache-2.0
"""Exports run as a person runs them: in the type that config.json names, with
the experts' implementation that transformers takes by itself. Grouped products
want rows of whole 16 bytes, which odd widths are not."""

from __future__ import annotations

import pathlib
from typing import Any

import expert_trace
import pytest
import quantized_models
import tiny_models
import torch
import transformers
from quantized_models import FAMILIES, SIZES, export, quantize
from test_export import assert_close, transformers_logits

ODD = dict(zip(FAMILIES, (95, 53, 81, 3, 71), strict=True))


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(2, 11)


def model_of_width(
    family: str, width: int, folder: pathlib.Path, dtype: torch.dtype
) -> pathlib.Path:
    base, sizes = SIZES[family]
    plain = family in ("mixtral", "olmoe")
    key = "intermediate_size" if plain else "moe_intermediate_size"
    config = {**base, "hidden_size": 64, **sizes, key: width}
    tiny_models.write(tiny_models.Variant(family, config, dtype), folder)
    expert_trace.write_tokenizer(folder)
    return folder


def assert_runs(
    fettle: Any,
    build_dir: pathlib.Path,
    exported: pathlib.Path,
    source: pathlib.Path,
    ids: torch.Tensor,
) -> None:
    """In its own type, whatever that rounds; and in fp32 the same outputs."""
    model = tiny_models.load_default(exported)
    assert model.config._experts_implementation != "eager"
    assert transformers_logits(model, ids).isfinite().all()
    assert_close(
        transformers_logits(model.float(), ids),
        expert_trace.fettle_logits(build_dir, source, ids),
    )


@pytest.mark.parametrize("form", ["hf", "hf-padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_odd_widths_run_by_default(
    family, form, fettle, build_dir, ids, tmp_path
):
    model = model_of_width(
        family, ODD[family], tmp_path / "model", torch.bfloat16
    )
    exported = export(fettle, model, form)
    assert_runs(fettle, build_dir, exported, model, ids)


@pytest.mark.parametrize("target", ["hf", "vllm"])
def test_a_trim_for_a_target_is_exported_without_padding(
    target, fettle, build_dir, ids, tmp_path
):
    model = model_of_width(
        "deepseek_v2", 192, tmp_path / "model", torch.bfloat16
    )
    data = expert_trace.write_ids(tmp_path / "data.jsonl", ids)
    scores, trimmed = tmp_path / "scores", tmp_path / "trimmed"
    expert_trace.run(fettle, "analyze", model, "--data", data, "--out", scores)
    expert_trace.run(
        fettle, "trim", model, "--scores", scores, "--keep", 0.4,
        "--for", target, "--out", trimmed,
    )
    exported = export(fettle, trimmed, "hf")
    config = transformers.AutoConfig.from_pretrained(exported)
    assert config.moe_intermediate_size == {"hf": 80, "vllm": 64}[target]
    assert_runs(fettle, build_dir, exported, trimmed, ids)


@pytest.mark.parametrize("group", [0, 32])
def test_odd_widths_of_codes_run_by_default(
    group, fettle, build_dir, ids, tmp_path
):
    model = model_of_width("qwen3_moe", 81, tmp_path / "model", torch.bfloat16)
    packed = quantize(fettle, model, "--bits", "int4", "--group", group)
    exported = export(fettle, packed, "compressed-tensors")
    loaded = tiny_models.load_default(exported)
    logits = transformers_logits(loaded, ids)
    assert logits.isfinite().all()
    assert loaded.config.moe_intermediate_size == {0: 88, 32: 96}[group]


def test_transformers_refuses_what_only_fettle_runs(
    fettle, build_dir, ids, tmp_path
):
    """Experts of their own widths; and every command of Fettle reads them."""
    model = quantized_models.make("qwen3_moe", tmp_path / "model")
    data = expert_trace.write_ids(tmp_path / "data.jsonl", ids)
    scores, trimmed = tmp_path / "scores", tmp_path / "trimmed"
    expert_trace.run(fettle, "analyze", model, "--data", data, "--out", scores)
    expert_trace.run(
        fettle, "trim", model, "--scores", scores, "--keep", 0.4,
        "--out", trimmed,
    )
    assert [file.name for file in trimmed.glob("*.safetensors")] == [
        "fettle.safetensors"
    ]
    with pytest.raises(OSError, match="no file named model.safetensors"):
        tiny_models.load_default(trimmed)
    # The name that earlier versions gave is read too.
    before = expert_trace.fettle_logits(build_dir, trimmed, ids)
    expert_trace.weights_file(trimmed).rename(trimmed / "model.safetensors")
    after = expert_trace.fettle_logits(build_dir, trimmed, ids)
    assert torch.equal(before, after)
