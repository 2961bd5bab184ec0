# SPDX-License-Identifier: Apache-2.0
"""Tiny language models within larger ones, and with heads of their own."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import safetensors.torch
import tiny_models
import tiny_shapes
import torch
import transformers

IMAGE_TOKEN = 90  # no text of the tests holds it

_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_CLIP = {
    **_VISION,
    "model_type": "clip_vision_model",
    "image_size": 8,
    "patch_size": 4,
}
_INTERN = {
    **_VISION,
    "model_type": "internvl_vision",
    "image_size": [8, 8],
    "patch_size": [4, 4],
}
_TEXTS = {
    "qwen3_moe": tiny_shapes.QWEN3,
    "qwen2_moe": tiny_shapes.QWEN2,
    "mixtral": tiny_shapes.MIXTRAL,
    "deepseek_v2": tiny_shapes.DEEPSEEK,
    "qwen3_vl_moe_text": {
        **tiny_shapes.QWEN3,
        "moe_intermediate_size": 20,  # sides of stacks differ
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
        },
    },
    "glm4v_moe_text": {
        **tiny_shapes.DOTS,
        "head_dim": 16,
        # Sections of half of the pairs that rotate.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [1, 1, 2],
        },
    },
    "gemma4_text": {**tiny_shapes.GEMMA, "pad_token_id": 0},
    "qwen3_5_moe_text": tiny_shapes.QWEN35,
}
_QWEN_VISION = {
    "model_type": "qwen3_5_moe_vision",
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 48,
    "num_position_embeddings": 16,
}
_GEMMA = {
    **_VISION,
    "model_type": "gemma4_vision",
    "num_key_value_heads": 2,
    "head_dim": 8,
    "patch_size": 4,
    "position_embedding_size": 8,
}
_GLM = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "depth": 1,
    "num_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "out_hidden_size": 48,
}
_WRAPPERS: dict[str, dict[str, Any]] = {
    "qwen3_5_moe": {
        "vision_config": _QWEN_VISION,
        "image_token_id": IMAGE_TOKEN,
        "video_token_id": IMAGE_TOKEN + 1,
        "vision_start_token_id": IMAGE_TOKEN + 2,
        "vision_end_token_id": IMAGE_TOKEN + 3,
    },
    "internvl": {
        "vision_config": _INTERN,
        "image_token_id": IMAGE_TOKEN,
        "tie_word_embeddings": False,
    },
    "gemma4": {"vision_config": _GEMMA, "image_token_id": IMAGE_TOKEN},
    "glm4v_moe": {
        "vision_config": _GLM,
        "image_token_id": IMAGE_TOKEN,
        **{
            f"{kind}_token_id": IMAGE_TOKEN + place
            for place, kind in enumerate(
                ("video", "image_start", "image_end", "video_start",
                 "video_end"),
                start=1,
            )
        },
    },
    "qwen3_vl_moe": {
        "vision_config": {
            **_GLM,
            "num_position_embeddings": 4,
            "deepstack_visual_indexes": [0],
        },
        "image_token_id": IMAGE_TOKEN,
        "video_token_id": IMAGE_TOKEN + 1,
        "vision_start_token_id": IMAGE_TOKEN + 2,
        "vision_end_token_id": IMAGE_TOKEN + 3,
        "tie_word_embeddings": False,
    },
    "llava": {"vision_config": _CLIP, "image_token_index": IMAGE_TOKEN},
    "llava_next": {"vision_config": _CLIP, "image_token_index": IMAGE_TOKEN},
    "llava_onevision": {
        "vision_config": {**_CLIP, "model_type": "siglip_vision_model"},
        "image_token_index": IMAGE_TOKEN,
    },
}


def make(
    wrapper: str,
    text: str,
    folder: pathlib.Path,
    dtype: torch.dtype = torch.float32,
) -> pathlib.Path:
    """Writes a model of `wrapper` around one of type `text`."""
    config = transformers.AutoConfig.for_model(
        wrapper,
        text_config={"model_type": text, **_TEXTS[text]},
        **json.loads(json.dumps(_WRAPPERS[wrapper])),
    )
    model = transformers.AutoModelForImageTextToText.from_config(config)
    tiny_models.randomize(model, 0)
    model.to(dtype).save_pretrained(folder)
    return folder


def rename_as_v5(folder: pathlib.Path) -> None:
    """Names as they are in memory: model.language_model.layers..."""
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    if any(name.startswith("model.language_model.") for name in tensors):
        return
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith("language_model.lm_head"):
            name = name.removeprefix("language_model.")
        elif name.startswith("language_model.model."):
            name = name.replace(
                "language_model.model.", "model.language_model.", 1
            )
        else:
            name = "model." + name
        renamed[name] = tensor
    safetensors.torch.save_file(renamed, file, {"format": "pt"})


def load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """The reference, in fp32."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    return model.eval()


def tensors_of(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, whatever its files are called."""
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors.update(safetensors.torch.load_file(file))
    return tensors


def is_carried(name: str) -> bool:
    """Whether a tensor belongs to a part that is not the language model."""
    parts = (
        "vision_tower", "embed_vision", "visual", "multi_modal", "image_",
    )
    return any(part in name for part in parts)


def add_head(folder: pathlib.Path, layers: int, source: int) -> None:
    """Adds a head as DeepSeek stores it: a copy of layer `source`, whose
    weights differ a little, behind the model's last."""
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    begin, head = f"model.layers.{source}.", f"model.layers.{layers}."
    for name, tensor in list(tensors.items()):
        if name.startswith(begin):
            noise = 0.01 * torch.randn_like(tensor)
            tensors[head + name.removeprefix(begin)] = tensor + noise
    hidden = tensors["model.norm.weight"].shape[0]
    like = tensors["model.norm.weight"]
    tensors[head + "eh_proj.weight"] = like.new_ones(hidden, 2 * hidden)
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        tensors[f"{head}{norm}.weight"] = torch.ones_like(like)
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config.pop("num_mtp_layers", None)
    config["num_nextn_predict_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))


def is_mtp(name: str) -> bool:
    """Whether a tensor belongs to a head as Qwen names it."""
    return name.startswith("mtp.")


def add_mtp(folder: pathlib.Path, source: int) -> None:
    """Adds a head as Qwen stores it: a copy of layer `source`, whose weights
    differ a little, beside the layers."""
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    begin = f"model.layers.{source}."
    for name, tensor in list(tensors.items()):
        if name.startswith(begin):
            noise = 0.01 * torch.randn_like(tensor)
            head = "mtp.layers.0." + name.removeprefix(begin)
            tensors[head] = tensor + noise
    like = tensors["model.norm.weight"]
    tensors["mtp.fc.weight"] = like.new_ones(len(like), 2 * len(like))
    for norm in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        tensors[f"mtp.{norm}.weight"] = torch.ones_like(like)
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
