# SPDX-License-Identifier: Apache-2.0
"""Every family's logits and gradients against transformers, in fp32, on the
CPU and on a card."""

import pathlib
import re

import pytest
import tiny_models
import torch
from conftest import DEVICE

# Relative to the largest value of the tensor: both sides sum in fp32, in
# different orders. Two CPU programs differ by 5e-5 at most, a card (H200) from
# them by 2e-4 (both mixtral_tied_linear, whose gradients nearly cancel).
TOLERANCE = {"cpu": 1e-4, "cuda": 5e-4 if DEVICE == "cuda" else 1e-4}

# transformers' own two forms of the gated delta rule, by chunks and by tokens,
# give gradients that differ by 5e-4.
RECURRENT = 1e-3

EXPERT = re.compile(
    r"(?P<prefix>.*\.experts)\.(?P<expert>\d+)\."
    r"(?P<part>gate_proj|up_proj|down_proj|w1|w2|w3)\.(?P<kind>weight|bias)"
)


@pytest.fixture(scope="module")
def ids() -> list[list[int]]:
    """Sequences of several lengths, one without anything to predict."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 97, (length,), generator=generator).tolist()
        for length in (33, 12, 1, 20)
    ]


def reference_logits(model, ids: list[list[int]]) -> torch.Tensor:
    """Each sequence by itself: no padding, no batch."""
    return torch.cat([model(torch.tensor([seq])).logits[0] for seq in ids])


def reference_loss(logits: torch.Tensor, ids: list[list[int]]) -> torch.Tensor:
    """Mean over all tokens that follow another one of their sequence."""
    targets = torch.cat([torch.tensor([*seq[1:], -100]) for seq in ids])
    return torch.nn.functional.cross_entropy(logits, targets)


# Names that differ in memory, but for those of single experts.
IN_MEMORY = {
    "backbone.": "model.",
    "block_sparse_moe.router.layer.weight": "block_sparse_moe.router.weight",
    "block_sparse_moe.gate.weight": "mlp.gate.weight",
    "block_sparse_moe.e_score_correction_bias":
        "mlp.e_score_correction_bias",
    "shared_mlp.gate_proj.weight": "shared_mlp.input_linear.weight",
    "shared_mlp.up_proj.weight": "shared_mlp.input_linear.weight",
}


def parameter(model, name: str) -> torch.Tensor:
    for on_disk, in_memory in IN_MEMORY.items():
        name = name.replace(on_disk, in_memory)
    return model.get_parameter(name)


def stack_of(model, prefix: str, part: str) -> torch.Tensor:
    """The gradient of the experts' weights, which Mixtral has elsewhere."""
    parameters = dict(model.named_parameters())
    for on_disk, in_memory in (
        ("", ""), (".block_sparse_moe.", ".mlp."), ("backbone.", "model."),
    ):
        place = prefix.replace(on_disk, in_memory)
        if f"{place}.{part}" in parameters:
            return parameters[f"{place}.{part}"].grad
    raise KeyError(prefix)


def reference_gradient(model, name: str) -> torch.Tensor:
    """The gradient of the weight that has this name on disk."""
    match = EXPERT.fullmatch(name)
    if match is None:
        gradient = parameter(model, name).grad
        if "shared_mlp.gate_proj" in name:
            return gradient.chunk(2)[0]
        if "shared_mlp.up_proj" in name:
            return gradient.chunk(2)[1]
        return gradient
    expert, part = int(match["expert"]), match["part"]
    turns = match["prefix"] + ".gate_up_proj_bias"
    if turns in dict(model.named_parameters()):
        return interleaved_gradient(model, match)
    if part in ("down_proj", "w2"):
        return stack_of(model, match["prefix"], "down_proj")[expert]
    if ".mixer." in match["prefix"]:  # no gate
        return stack_of(model, match["prefix"], "up_proj")[expert]
    stack = stack_of(model, match["prefix"], "gate_up_proj")[expert]
    gate, up = stack.chunk(2)
    return gate if part in ("gate_proj", "w1") else up


def interleaved_gradient(model, match: re.Match) -> torch.Tensor:
    """The same where gate and up take turns in a stack's columns."""
    expert, part = int(match["expert"]), match["part"]
    stack = "down_proj" if part == "down_proj" else "gate_up_proj"
    ending = "_bias" if match["kind"] == "bias" else ""
    whole = model.get_parameter(f"{match['prefix']}.{stack}{ending}").grad[expert]
    if part != "down_proj":
        whole = whole[..., part == "up_proj" :: 2]
    return whole.t()


def trained(tensors: dict[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """All but what only enters the choice of experts, and fixed factors."""
    fixed = ("e_score_correction_bias", "expert_bias", "layer_scalar")
    return [
        (name, tensor)
        for name, tensor in tensors.items()
        if not name.endswith(fixed)
    ]


def tolerance(model, device: str) -> float:
    kinds = getattr(model.config, "layer_types", None) or ()
    recurrent = RECURRENT if "linear_attention" in kinds else 0.0
    return max(TOLERANCE[device], recurrent)


def assert_close(
    found: torch.Tensor, expected: torch.Tensor, name: str, bound: float
) -> None:
    assert found.shape == expected.shape, name
    scale = expected.abs().max().item()
    error = (found - expected).abs().max().item()
    assert error <= bound * scale, f"{name}: {error} of {scale}"


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_family_equals_transformers(name, ids, probe, tmp_path):
    check(tiny_models.make(name, tmp_path), ids, probe)


# Around the chunks of a recurrence, and shorter than a convolution.
@pytest.mark.parametrize("name", ["qwen_next", "qwen35", "granite_hybrid", "nemotron"])
def test_recurrences_may_end_anywhere_in_a_chunk(name, probe, tmp_path):
    generator = torch.Generator().manual_seed(2)
    ids = [
        torch.randint(0, 97, (length,), generator=generator).tolist()
        for length in (63, 2, 64, 65, 3, 130)
    ]
    check(tiny_models.make(name, tmp_path), ids, probe)


def check(folder: pathlib.Path, ids: list[list[int]], probe) -> None:
    """Logits and gradients, where sequences lie packed behind each other."""
    model = tiny_models.load(folder)
    logits = reference_logits(model, ids)
    loss = reference_loss(logits, ids)
    loss.backward()

    for device in ("cpu", "cuda"):
        bound = tolerance(model, device)
        gradients = probe("gradients", folder, ids, device)
        assert_close(gradients.pop("logits"), logits.detach(), "logits", bound)
        assert_close(gradients.pop("loss"), loss.detach(), "loss", bound)
        for weight, gradient in trained(gradients):
            expected = reference_gradient(model, weight)
            assert_close(gradient, expected, weight, bound)
        # Nothing is left out: together they are all of the model's parameters.
        found_size = sum(gradient.numel() for _, gradient in trained(gradients))
        parameters = trained(dict(model.named_parameters()))
        assert found_size == sum(p.numel() for _, p in parameters)


def test_options_show_in_the_logits(ids, tmp_path):
    """Each variant differs from its family's plain one, so that the comparison
    above would notice an option that is ignored."""
    same_weights = {
        "qwen3": ["window", "linear", "yarn", "dynamic", "llama3"],
        "mixtral": ["window"],
        "olmoe": ["clip"],
        "deepseek": ["yarn", "yarn_mscale", "linear"],
        "deepseek_v3": ["half", "no_groups"],
        "glm": ["partial"],
        "gpt_oss": ["truncate"],
        "ernie": ["norm_min"],
        "granite": ["plain"],
    }
    for plain, variants in same_weights.items():
        model = tiny_models.load(tiny_models.make(plain, tmp_path))
        with torch.no_grad():
            base = reference_logits(model, ids)
        for variant in variants:
            name = f"{plain}_{variant}"
            model = tiny_models.load(tiny_models.make(name, tmp_path))
            with torch.no_grad():
                logits = reference_logits(model, ids)
            difference = (logits - base).abs().max().item()
            assert difference > 0.01 * base.abs().max().item(), name
