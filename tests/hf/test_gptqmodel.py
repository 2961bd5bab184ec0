# SPDX-License-Identifier: Apache-2.0
"""GPTQ exports in GPTQModel, on the CPU. Skipped where the package gptqmodel is
not installed; docs/export-formats.md has the figures of a run."""

from __future__ import annotations

import os
import pathlib
import shutil

import expert_trace
import pytest
import quantized_models
import torch
from test_export_quant import _gptq_name, values

gptqmodel = pytest.importorskip(
    "gptqmodel", reason="gptqmodel is not installed"
)

# A trained model to round: the bundled one, or that of docs/export-formats.md.
MODEL = pathlib.Path(
    os.environ.get("FETTLE_MODEL", pathlib.Path(__file__).parents[2] / "demo" / "model")
)


def load(folder: pathlib.Path, dtype: torch.dtype) -> torch.nn.Module:
    """In 16 bits: its plain backend knows no other."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).exists():
            shutil.copy(MODEL / name, folder / name)
    return gptqmodel.GPTQModel.load(
        str(folder),
        backend=gptqmodel.BACKEND.GPTQ_TORCH,
        device="cpu",
        dtype=dtype,
    ).model.eval()


def check_weights(model: torch.nn.Module, packed: pathlib.Path) -> float:
    """The largest relative difference of all quantized weights, which must all
    be there; what is computed from them is rounded to float16."""
    expected = {_gptq_name(name): w for name, w in values(packed).items()}
    worst, seen = 0.0, set()
    for name, module in model.named_modules():
        if not hasattr(module, "qweight"):
            continue
        weight = expected[name + ".weight"]
        rows, cols = weight.shape
        found = module.dequantize_weight().t().float()[:rows, :cols]
        error = (found - weight).abs() / weight.abs().clamp(min=1e-6)
        worst = max(worst, error.max().item())
        seen.add(name + ".weight")
    assert worst <= 2**-10
    assert {name for name in expected if "experts." in name} <= seen
    return worst


def report(label: str, worst: float, found, expected) -> None:
    error = (found - expected).abs().max().item()
    print(
        f"\n{label}: weights {worst:.1e} relative, logits differ by {error:.3f} "
        f"of {expected.abs().max():.1f}"
    )


@pytest.mark.parametrize(
    "family, scheme",
    [
        (family, ("--bits", "int4", "--group", 32))
        for family in quantized_models.FAMILIES
    ]
    + [
        ("qwen3_moe", ("--bits", "int8", "--group", 32)),
        ("qwen3_moe", ("--bits", "int3", "--group", 32)),
        ("qwen3_moe", ("--bits", "int2", "--group", 32)),
        ("qwen3_moe", ("--bits", "int4", "--group", 0, "--zeros", "yes")),
        ("qwen3_moe", ("--bits", "int4", "--down", "int8", "--group", 32,
                       "--attention", "keep")),
        ("qwen2_moe", ("--bits", "ternary", "--group", 32, "--shared", "keep")),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(map(str, x[1:])),
)
def test_exports_load_with_every_value(
    family, scheme, fettle, build_dir, tmp_path
):
    model = quantized_models.make(family, tmp_path / "model", dtype="float16")
    packed = quantized_models.quantize(fettle, model, *scheme)
    exported = quantized_models.export(fettle, packed, "gptq", "--recode")
    ids = expert_trace.random_ids(1, 24)
    expected = expert_trace.fettle_logits(build_dir, packed, ids)
    loaded = load(exported, torch.float16)
    worst = check_weights(loaded, packed)
    with torch.no_grad():
        found = loaded(ids).logits[0].float()
    report(f"{family} {' '.join(map(str, scheme))}", worst, found, expected)
    # Activations of 16 bits.
    assert (found - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize("scheme", [("--bits", "int4"), ("--bits", "int8")])
def test_a_trained_model(scheme, fettle, build_dir, tmp_path):
    packed = tmp_path / "packed"
    expert_trace.run(
        fettle, "quant", MODEL, "--out", packed, "--method", "rtn", *scheme
    )
    exported = quantized_models.export(fettle, packed, "gptq")
    ids = torch.arange(5, 261)[None]
    expected = expert_trace.fettle_logits(build_dir, packed, ids)
    loaded = load(exported, torch.bfloat16)
    worst = check_weights(loaded, packed)
    with torch.no_grad():
        found = loaded(ids).logits[0].float()
    report("trained " + " ".join(scheme), worst, found, expected)
    a, b = expected.log_softmax(-1), found.log_softmax(-1)
    kl = (a.exp() * (a - b)).sum(-1).mean().item()
    print(f"KL {kl:.1e}")
    assert kl < 1e-2
