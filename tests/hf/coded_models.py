# SPDX-License-Identifier: Apache-2.0
"""Tiny models stored in few bits, in the forms of the tools that write them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import expert_trace
import safetensors.torch
import torch
from compressed_tensors import quantization
from compressed_tensors.compressors import BaseCompressor

Tensors = dict[str, torch.Tensor]

# Projections of attention and MLPs; no router, embedding or head.
_LINEAR = re.compile(r"\.layers\..*(_proj|w[123]|kv_a_proj_with_mqa)\.weight$")
FP8_MAX = 448.0


def recode(
    source: pathlib.Path,
    folder: pathlib.Path,
    code: Callable[[str, torch.Tensor], Tensors],
    quantization: dict[str, Any],
    keep: str = "^$",
) -> pathlib.Path:
    """`source` with code(module, weight) in place of every linear weight but
    those whose name matches `keep`."""
    tensors: Tensors = {}
    stored = safetensors.torch.load_file(expert_trace.weights_file(source))
    for name, tensor in stored.items():
        if _LINEAR.search(name) and not re.search(keep, name):
            tensors |= code(name.removesuffix(".weight"), tensor)
        else:
            tensors[name] = tensor
    return save(source, folder, tensors, quantization)


def save(
    source: pathlib.Path,
    folder: pathlib.Path,
    tensors: Tensors,
    quantization: dict[str, Any],
) -> pathlib.Path:
    """`source` with other weights in `folder`."""
    shutil.copytree(
        source, folder, ignore=shutil.ignore_patterns("*.safetensors")
    )
    safetensors.torch.save_file(
        {name: t.contiguous() for name, t in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fp8_blocks(
    weight: torch.Tensor, block: tuple[int, int], scale_type: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and a scale for each block; blocks at the edges are short."""
    rows, cols = weight.shape[-2:]
    grid = [-(-rows // block[0]), -(-cols // block[1])]
    padded = torch.zeros(grid[0] * block[0], grid[1] * block[1])
    padded[:rows, :cols] = weight.float()
    tiles = padded.reshape(grid[0], block[0], grid[1], block[1])
    scales = (tiles.abs().amax((1, 3)) / FP8_MAX).clamp(min=2.0**-60)
    if scale_type == torch.float8_e8m0fnu:
        scales = scales.log2().ceil().exp2()
    scales = scales.to(scale_type)
    codes = tiles / scales.float()[:, None, :, None]
    codes = codes.reshape(padded.shape)[:rows, :cols]
    return codes.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scales


def fp8_config(block: tuple[int, int] | None, **more: Any) -> dict[str, Any]:
    return {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block) if block else None,
        "modules_to_not_convert": ["lm_head", "mlp.gate"],
        **more,
    }


def write_fp8(
    source: pathlib.Path,
    folder: pathlib.Path,
    block: tuple[int, int],
    scale_type: torch.dtype = torch.float32,
    **options: Any,
) -> pathlib.Path:
    """`source` with blocks of fp8, expert by expert."""

    def code(module: str, weight: torch.Tensor) -> Tensors:
        codes, scales = fp8_blocks(weight, block, scale_type)
        return {
            module + ".weight": codes,
            module + ".weight_scale_inv": scales,
        }

    more = (
        {"scale_fmt": "ue8m0"} if scale_type == torch.float8_e8m0fnu else {}
    )
    return recode(source, folder, code, fp8_config(block, **more), **options)


def fuse_fp8(source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """An fp8 model with its experts stacked, codes and scales."""
    stored = safetensors.torch.load_file(expert_trace.weights_file(source))
    part = re.compile(r"(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.(weight.*)")
    tensors: Tensors = {}
    stacks: dict[tuple[str, str], dict[str, Tensors]] = {}
    for name, tensor in stored.items():
        found = part.fullmatch(name)
        if found is None:
            tensors[name] = tensor
            continue
        experts, expert, kind, what = found.groups()
        stacks.setdefault((experts, what), {}).setdefault(expert, {})[
            kind
        ] = tensor
    for (experts, what), by_expert in stacks.items():
        ordered = [by_expert[str(e)] for e in range(len(by_expert))]
        end = "_scale_inv" if what.endswith("inv") else ""
        both = [torch.cat([e["gate"], e["up"]]) for e in ordered]
        tensors[f"{experts}.gate_up_proj{end}"] = torch.stack(both)
        tensors[f"{experts}.down_proj{end}"] = torch.stack(
            [e["down"] for e in ordered]
        )
    config = json.loads((source / "config.json").read_text())
    return save(source, folder, tensors, config["quantization_config"])


@dataclasses.dataclass
class Codes:
    """Integers of a weight [out, in], and their values."""

    codes: torch.Tensor  # [out, in] int64
    scales: torch.Tensor  # [out, groups]
    zeros: torch.Tensor  # [out, groups] int64
    groups: torch.Tensor  # [in] of each column

    def values(self) -> torch.Tensor:
        zeros = self.zeros[:, self.groups].float()
        return (self.codes.float() - zeros) * self.scales.float()[:, self.groups]


def rounded(
    weight: torch.Tensor,
    bits: int,
    group: int,
    scale_type: torch.dtype,
    order: torch.Tensor | None = None,
) -> Codes:
    """To the nearest levels with a zero point a group. With `order` columns
    are grouped as they come there."""
    columns = torch.arange(weight.shape[1])
    groups = columns // group
    if order is not None:
        groups = groups[torch.argsort(order)]
    count = int(groups.max()) + 1
    top = 2**bits - 1
    low = torch.stack(
        [weight[:, groups == g].amin(1) for g in range(count)], 1
    ).clamp(max=0)
    high = torch.stack(
        [weight[:, groups == g].amax(1) for g in range(count)], 1
    ).clamp(min=0)
    scales = ((high - low) / top).clamp(min=1e-4).to(scale_type)
    # Version 1 of GPTQ has no place for a zero point of 0.
    zeros = (-low / scales.float()).round().clamp(1, top).long()
    codes = (weight / scales.float()[:, groups]).round().long()
    codes = (codes + zeros[:, groups]).clamp(0, top)
    return Codes(codes, scales, zeros, groups)


def stream_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Rows of codes as a dense stream of bits in int32 words."""
    bit = codes[..., None] >> torch.arange(bits) & 1
    flat = bit.flatten(-2)
    pad = -flat.shape[-1] % 32
    flat = torch.nn.functional.pad(flat, (0, pad))
    words = flat.unflatten(-1, (-1, 32)) << torch.arange(32)
    return words.sum(-1).to(torch.int32)


def awq_words(codes: torch.Tensor) -> torch.Tensor:
    """Words of 8 codes of 4 bits along the row, in AWQ's order."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    eights = codes.unflatten(-1, (-1, 8))[..., order]
    return (eights << 4 * torch.arange(8)).sum(-1).to(torch.int32)


def write_gptq(
    source: pathlib.Path,
    folder: pathlib.Path,
    bits: int,
    group: int,
    version: int = 1,
    act_order: bool = False,
) -> dict[str, torch.Tensor]:
    """`source` as GPTQModel packs it, in `folder`; returns the values."""
    values: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(5)

    def code(module: str, weight: torch.Tensor) -> Tensors:
        order = (
            torch.randperm(weight.shape[1], generator=generator)
            if act_order
            else None
        )
        made = rounded(weight, bits, group, torch.float16, order)
        values[module + ".weight"] = made.values()
        zeros = made.zeros.T - (1 if version == 1 else 0)
        return {
            module + ".qweight": stream_words(made.codes, bits).T,
            module + ".qzeros": stream_words(zeros, bits),
            module + ".scales": made.scales.T,
            module + ".g_idx": made.groups.to(torch.int32),
        }

    recode(
        source,
        folder,
        code,
        {
            "quant_method": "gptq",
            "bits": bits,
            "group_size": group,
            "desc_act": act_order,
            "sym": False,
            "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
        },
    )
    return values


def write_awq(
    source: pathlib.Path, folder: pathlib.Path, group: int
) -> dict[str, torch.Tensor]:
    """`source` as AutoAWQ packs it, in `folder`; returns the values."""
    values: dict[str, torch.Tensor] = {}

    def code(module: str, weight: torch.Tensor) -> Tensors:
        made = rounded(weight, 4, group, torch.float16)
        values[module + ".weight"] = made.values()
        return {
            module + ".qweight": awq_words(made.codes.T),
            module + ".qzeros": awq_words(made.zeros.T),
            module + ".scales": made.scales.T,
        }

    recode(
        source,
        folder,
        code,
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": group,
            "zero_point": True,
            "version": "gemm",
        },
    )
    return values


def _parts(
    weight: torch.Tensor,
    args: quantization.QuantizationArgs,
    scale_type: torch.dtype,
) -> Tensors:
    """A weight with scales and zero points between its extremes."""
    rows, cols = weight.shape
    one = args.strategy == "tensor"
    group = args.group_size or cols
    tiles = weight.reshape(1, 1, -1) if one else weight.reshape(rows, -1, group)
    low, high = tiles.amin(-1).clamp(max=0), tiles.amax(-1).clamp(min=0)
    least, most = quantization.utils.calculate_range(args, weight.device)
    if args.symmetric:
        scale = torch.maximum(-low, high) / most
        zero = torch.zeros_like(scale)
    else:
        scale = (high - low) / (most - least)
        zero = (least - low / scale).round().clamp(least, most)
    if one:
        scale, zero = scale.flatten(), zero.flatten()
    return {
        "weight": weight,
        "weight_scale": scale.to(scale_type),
        "weight_zero_point": zero.to(args.pytorch_dtype()),
    }


def write_compressed(
    source: pathlib.Path,
    folder: pathlib.Path,
    form: str,
    scale_type: torch.dtype = torch.float32,
    **arguments: Any,
) -> dict[str, torch.Tensor]:
    """`source` as compressed-tensors writes it with QuantizationArgs of
    `arguments`; returns what the package reads again."""
    args = quantization.QuantizationArgs(**arguments)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(form)
    values: dict[str, torch.Tensor] = {}

    def code(module: str, weight: torch.Tensor) -> Tensors:
        stored = compressor.compress(_parts(weight, args, scale_type), scheme)
        values[module + ".weight"] = compressor.decompress(stored, scheme)[
            "weight"
        ]
        return {f"{module}.{name}": part for name, part in stored.items()}

    group = {
        "targets": ["Linear"],
        "weights": json.loads(args.model_dump_json()),
    }
    config = {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", "re:.*mlp.gate$"],
    }
    recode(source, folder, code, config)
    return values


def write_values(
    source: pathlib.Path,
    folder: pathlib.Path,
    values: dict[str, torch.Tensor],
) -> pathlib.Path:
    """`source` with other values of some weights, plain."""
    stored = safetensors.torch.load_file(expert_trace.weights_file(source))
    assert set(values) <= set(stored)
    plain = {name: values.get(name, t).float() for name, t in stored.items()}
    save(source, folder, plain, {})
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


MXFP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def mxfp4_values(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """[.., groups, 16] of two codes a byte, the lower half first, to [.., 32
    groups]; the fourth bit of a code is its sign."""
    levels = torch.tensor([*MXFP4_VALUES, *(-v for v in MXFP4_VALUES)])
    codes = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2)
    values = levels[codes.long()] * 2.0 ** (scales.float() - 127)[..., None]
    return values.flatten(-2)


def write_mxfp4(source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """gpt-oss with random codes for its experts' matrices."""
    generator = torch.Generator().manual_seed(4)
    tensors: Tensors = {}
    stored = safetensors.torch.load_file(expert_trace.weights_file(source))
    for name, tensor in stored.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = tensor.bfloat16()
            continue
        experts, inputs, outputs = tensor.shape
        shape = (experts, outputs, inputs // 32)
        tensors[name + "_blocks"] = torch.randint(
            0, 256, (*shape, 16), generator=generator, dtype=torch.uint8
        )
        tensors[name + "_scales"] = torch.randint(
            122, 126, shape, generator=generator, dtype=torch.uint8
        )
    config = json.loads((source / "config.json").read_text())
    config["dtype"] = "bfloat16"
    (source / "config.json").write_text(json.dumps(config))
    return save(
        source,
        folder,
        tensors,
        {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        },
    )
