# SPDX-License-Identifier: Apache-2.0
"""Language models within larger ones, and heads that predict further tokens:
what Fettle doesn't read is the same at every stage, and what it writes loads
in transformers' own class of the whole model."""

from __future__ import annotations

import json
import pathlib
import subprocess

import expert_trace
import nested_models
import pytest
import safetensors.torch
import test_export
import tiny_models
import torch
from test_export import assert_close, transformers_logits

NESTED = [
    ("qwen3_vl_moe", "qwen3_vl_moe_text"),
    ("gemma4", "gemma4_text"),
    ("glm4v_moe", "glm4v_moe_text"),
    ("internvl", "qwen3_moe"),
    ("internvl", "deepseek_v2"),
    ("llava", "qwen2_moe"),
    ("llava_next", "mixtral"),
    ("llava_onevision", "qwen3_moe"),
    ("qwen3_5_moe", "qwen3_5_moe_text"),
]


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return expert_trace.random_ids(4, 17) % nested_models.IMAGE_TOKEN


def analyze(fettle, folder: pathlib.Path, ids: torch.Tensor) -> pathlib.Path:
    """Scores in scores/ beside the folder; the data are returned."""
    expert_trace.write_tokenizer(folder)
    data = expert_trace.write_ids(folder.parent / "data.jsonl", ids)
    scores = folder.parent / "scores"
    expert_trace.run(
        fettle,
        *("analyze", folder, "--data", data, "--out", scores),
        *("--scores", "obs,reap"),
    )
    return data


INT8 = ("--method", "rtn", "--bits", "int8", "--group", 8)


def quantize(fettle, folder: pathlib.Path, out: pathlib.Path) -> None:
    expert_trace.run(fettle, "quant", folder, "--out", out, *INT8)


def assert_carried(before: pathlib.Path, after: pathlib.Path, kind) -> None:
    """The same tensors of `kind` on both sides, to the bit."""
    old, new = map(nested_models.tensors_of, (before, after))
    carried = {name for name in old if kind(name)}
    assert carried == {name for name in new if kind(name)}
    assert carried
    for name in carried:
        assert old[name].dtype == new[name].dtype
        assert torch.equal(old[name], new[name]), name


def assert_parts(before: pathlib.Path, after: pathlib.Path) -> None:
    """Parts and their description are as they came."""
    assert_carried(before, after, nested_models.is_carried)
    old, new = (
        json.loads((folder / "config.json").read_text())
        for folder in (before, after)
    )
    assert new["vision_config"] == old["vision_config"]
    assert new["model_type"] == old["model_type"]
    assert new["text_config"]["model_type"] == old["text_config"]["model_type"]


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("wrapper,text", NESTED)
def test_logits_and_an_untouched_copy(
    wrapper, text, v5, fettle, build_dir, ids, tmp_path
):
    folder = nested_models.make(wrapper, text, tmp_path / "model")
    expected = transformers_logits(nested_models.load(folder), ids)
    if v5:
        nested_models.rename_as_v5(folder)
    assert_close(expert_trace.fettle_logits(build_dir, folder, ids), expected)
    exported = test_export.export(fettle, folder, "--format", "hf")
    assert_parts(folder, exported)
    assert set(nested_models.tensors_of(exported)) == set(
        nested_models.tensors_of(folder)
    )
    found = transformers_logits(nested_models.load(exported), ids)
    assert torch.equal(found, expected)


def test_stacks_of_columns_are_read(build_dir, ids, tmp_path):
    folder = nested_models.make(
        "qwen3_vl_moe", "qwen3_vl_moe_text", tmp_path / "model"
    )
    expected = expert_trace.fettle_logits(build_dir, folder, ids)
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    for name, tensor in tensors.items():
        if ".experts." in name:
            tensors[name] = tensor.transpose(1, 2).contiguous()
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    found = expert_trace.fettle_logits(build_dir, folder, ids)
    assert torch.equal(found, expected)
    assert_close(found, transformers_logits(nested_models.load(folder), ids))


@pytest.mark.parametrize("wrapper,text", NESTED)
def test_trims_load_in_the_whole_models_class(
    wrapper, text, fettle, build_dir, ids, tmp_path
):
    folder = nested_models.make(wrapper, text, tmp_path / "model")
    analyze(fettle, folder, ids)
    trimmed = test_export.trim(fettle, folder, keep=0.4)
    assert_parts(folder, trimmed)
    exported = test_export.export(fettle, trimmed, "--format", "hf-padded")
    assert_parts(folder, exported)
    assert "fettle" not in json.loads((exported / "config.json").read_text())
    assert_close(
        transformers_logits(nested_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, trimmed, ids),
    )


def test_every_stage_keeps_the_parts(fettle, ids, tmp_path):
    folder = nested_models.make(
        "internvl", "qwen3_moe", tmp_path / "model", torch.bfloat16
    )
    data = analyze(fettle, folder, ids)
    quantized, tuned, merged = (tmp_path / n for n in ("q", "tuned", "merged"))
    quantize(fettle, folder, quantized)
    assert_parts(folder, quantized)
    expert_trace.run(
        fettle,
        *("tune", folder, "--data", data, "--method", "lora", "--steps", 1),
        *("--out", tuned, "--merge", merged),
    )
    assert_parts(folder, merged)
    ragged = test_export.export(fettle, quantized, "--format", "ragged")
    assert_parts(folder, ragged)
    plain = tmp_path / "plain"
    expert_trace.run(
        fettle, "export", quantized, "--format", "hf", "--out", plain
    )
    assert_parts(folder, plain)
    nested_models.load(plain)


def test_codes_for_vllm_leave_the_parts_plain(fettle, tmp_path):
    folder = nested_models.make(
        "internvl", "qwen3_moe", tmp_path / "model", torch.bfloat16
    )
    expert_trace.write_tokenizer(folder)
    quantized = tmp_path / "q"
    quantize(fettle, folder, quantized)
    codes = test_export.export(
        fettle, quantized, "--format", "compressed-tensors", "--recode"
    )
    assert_parts(folder, codes)
    config = json.loads((codes / "config.json").read_text())
    ignored = config["quantization_config"]["ignore"]
    assert any("vision_tower" in pattern for pattern in ignored)
    assert any("multi_modal_projector" in pattern for pattern in ignored)


def test_inspect_lists_what_is_carried(fettle, tmp_path):
    folder = nested_models.make("internvl", "qwen3_moe", tmp_path / "model")
    command = [str(fettle), "inspect", str(folder), "--json", "-"]
    told = json.loads(subprocess.check_output(command, timeout=300))
    tensors = nested_models.tensors_of(folder)
    carried = [
        t for name, t in tensors.items() if nested_models.is_carried(name)
    ]
    assert sum(part["tensors"] for part in told["carried"].values()) == len(
        carried
    )
    assert told["carried_bytes"] == sum(t.nbytes for t in carried)


def is_head(name: str) -> bool:
    return name.startswith("model.layers.3.")


@pytest.fixture(params=["deepseek", "deepseek_v3", "glm"])
def headed(request, fettle, ids, tmp_path) -> pathlib.Path:
    """A model with a head behind its three layers, and scores."""
    folder = tiny_models.make(request.param, tmp_path)
    nested_models.add_head(folder, layers=3, source=2)
    analyze(fettle, folder, ids)
    return folder


def test_a_head_is_kept_as_it_is(headed, fettle):
    trimmed = test_export.trim(fettle, headed, keep=0.6)
    assert_carried(headed, trimmed, is_head)
    quantized = headed.parent / "q"
    quantize(fettle, headed, quantized)
    assert_carried(headed, quantized, is_head)
    exported = test_export.export(fettle, headed, "--format", "hf")
    assert_carried(headed, exported, is_head)


@pytest.mark.parametrize("unit", ["neuron", "expert"])
def test_a_head_fits_the_cut_layers(unit, headed, fettle, build_dir, ids):
    # Loaders build the head as they build the layers: of the same shapes.
    whole = unit == "expert"
    trimmed = test_export.trim(
        fettle,
        headed,
        keep=0.75 if whole else 0.4,
        unit=unit,
        score="reap" if whole else "obs",
        scope="layer",
    )
    exported = test_export.export(fettle, trimmed, "--format", "hf-padded")
    tensors = nested_models.tensors_of(exported)
    experts = 0
    for name, tensor in tensors.items():
        if not name.startswith("model.layers.2."):
            continue
        head = tensors[name.replace("layers.2.", "layers.3.")]
        assert head.shape == tensor.shape, name
        experts += "down_proj" in name and ".experts." in name
    config = json.loads((exported / "config.json").read_text())
    assert experts == config["n_routed_experts"]
    assert config["num_nextn_predict_layers"] == 1
    assert len([n for n in tensors if is_head(n)]) == 4 + len(
        [n for n in tensors if n.startswith("model.layers.2.")]
    )
    # transformers leaves the head aside.
    assert_close(
        transformers_logits(tiny_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, trimmed, ids),
    )


@pytest.mark.parametrize("stage", ["trim", "quant", "export", "tune"])
def test_a_dropped_head_leaves_no_trace(stage, headed, fettle):
    out, data = headed.parent / "out", headed.parent / "data.jsonl"
    flags = {
        "trim": ("--scores", headed.parent / "scores", "--keep", 0.6),
        "quant": INT8,
        "export": ("--format", "hf"),
        "tune": ("--data", data, "--method", "lora", "--steps", 1),
    }[stage]
    target = ("--out", out)
    if stage == "tune":
        target = ("--out", headed.parent / "tuned", "--merge", out)
    expert_trace.run(fettle, stage, headed, *flags, *target, "--mtp", "drop")
    assert not any(map(is_head, nested_models.tensors_of(out)))
    config = json.loads((out / "config.json").read_text())
    assert config["num_nextn_predict_layers"] == 0


def test_a_head_in_fp8_can_not_be_kept(headed, fettle):
    file = headed / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    name = "model.layers.3.eh_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    out = headed.parent / "out"
    command = [str(fettle), "export", str(headed), "--out", str(out)]
    refused = subprocess.run(
        [*command, "--mtp", "keep"], capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert f"{name} is stored as F8" in refused.stderr
    assert "--mtp drop" in refused.stderr
    subprocess.run(command, check=True, capture_output=True)
    assert not any(map(is_head, nested_models.tensors_of(out)))


def test_a_head_beside_the_layers_fits_them(fettle, build_dir, ids, tmp_path):
    folder = tiny_models.make("qwen_next", tmp_path)
    nested_models.add_mtp(folder, source=3)
    analyze(fettle, folder, ids)
    trimmed = test_export.trim(fettle, folder, keep=0.4)
    assert_carried(folder, trimmed, nested_models.is_mtp)
    exported = test_export.export(fettle, trimmed, "--format", "hf-padded")
    tensors = nested_models.tensors_of(exported)
    layer = [name for name in tensors if name.startswith("model.layers.3.")]
    for name in layer:
        head = tensors[name.replace("model.layers.3.", "mtp.layers.0.")]
        assert head.shape == tensors[name].shape, name
    heads = [name for name in tensors if nested_models.is_mtp(name)]
    assert len(heads) == len(layer) + 4
    assert_close(
        transformers_logits(tiny_models.load(exported), ids),
        expert_trace.fettle_logits(build_dir, trimmed, ids),
    )
