# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of every family, with the quirks of real shapes.

The weights are drawn wide enough that routing is decisive and every option
shows in the logits. `make(name, out_dir)` writes a variant of `VARIANTS`.
"""

from __future__ import annotations

import json
import pathlib
import re

import torch
import transformers
import v4_config
from tiny_variants import VARIANTS, Variant


def config_of(variant: Variant) -> transformers.PretrainedConfig:
    """The variant's configuration object."""
    return transformers.AutoConfig.for_model(
        variant.model_type, **json.loads(json.dumps(variant.config))
    )


ROUTERS = ("mlp.gate.weight", "router.gate.weight", "router.weight",
           "router.proj.weight", "feed_forward.gate.weight",
           "mixer.gate.weight")
# Into and out of a state, which sums up many tokens: wider ones make more of
# rounding.
RECURRENT = re.compile(r"linear_attn\.(in_proj_qkv|out_proj)")
CORRECTIONS = ("correction_bias", "expert_bias")


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Wide random weights; norms around one, so that none is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in [*model.named_parameters(), *_scalars(model)]:
        if name.endswith(CORRECTIONS):
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() == 1 and "norm" in name:
            # Around what they begin as: 1, or 0 where the norm adds 1.
            weight.data = weight.data + 0.2 * noise
        elif weight.dim() == 1 and "scal" in name:
            weight.data = 1.0 + 0.2 * noise
        elif name.endswith((*ROUTERS, "embed_tokens.weight", "embeddings.weight")):
            weight.data = noise
        elif name.endswith("gate_up_proj_bias"):
            weight.data = 1.5 * noise  # so that some are clamped
        else:
            # Keeps the variance of what a row is multiplied with.
            fan_in = weight.shape[-1] if weight.dim() > 1 else 4
            gain = 0.75 if RECURRENT.search(name) else 1.5
            weight.data = gain * noise / fan_in**0.5
    # Such that corrected scores may be negative.
    for correction in _corrections(model):
        noise = torch.randn(correction.shape, generator=generator)
        correction.data = 0.6 * noise - 0.3


def _corrections(model: torch.nn.Module) -> list[torch.Tensor]:
    """What routers add to scores, parameters or not."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [t for name, t in tensors if name.endswith(CORRECTIONS)]


def _scalars(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Factors of layers, which are no parameters."""
    return [
        (name, tensor)
        for name, tensor in model.named_buffers()
        if name.endswith("layer_scalar")
    ]


def make(
    name: str, out_dir: pathlib.Path | str, seed: int = 0
) -> pathlib.Path:
    """Writes the variant into out_dir/name and returns that folder."""
    return write(VARIANTS[name], pathlib.Path(out_dir) / name, seed)


def write(
    variant: Variant, folder: pathlib.Path, seed: int = 0
) -> pathlib.Path:
    """Writes a variant into `folder` and returns it."""
    model = transformers.AutoModelForCausalLM.from_config(config_of(variant))
    randomize(model, seed)
    model.tie_weights()
    model.to(variant.dtype)
    for correction in _corrections(model):
        correction.data = correction.data.float()
    model.save_pretrained(
        folder,
        max_shard_size=variant.max_shard_size,
        save_original_format=not variant.fused,
    )
    if variant.v4_config:
        v4_config.rewrite(folder / "config.json")
    return folder


def load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """The reference: fp32, attention and experts written out."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    return model.eval()


def load_default(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """As a person loads it: the type that config.json names, and whatever
    transformers takes for attention and experts."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model.eval()
