# SPDX-License-Identifier: Apache-2.0
"""Folders with code of their own in transformers, against Fettle's probe.

FETTLE_TEST_ALL=1 runs every tiny variant, not only some.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess

import expert_trace
import moe_parts
import nested_models
import peft
import pytest
import safetensors.torch
import test_export
import tiny_models
import tiny_variants
import torch
import transformers

scored = test_export.scored
ids = test_export.ids

ALL = sorted(tiny_variants.VARIANTS)
SOME = ["qwen3", "mixtral_fused", "gpt_oss", "gemma", "nemotron"]
VARIANTS = ALL if os.environ.get("FETTLE_TEST_ALL") else SOME
ROUTER = re.compile(r"(.*?\.(?:router|gate))\.(?:\w+\.)?weight")


def load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """As a stranger loads it, in fp32."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        trust_remote_code=True,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert not any(info.values()), info
    return model.eval()


def add_condensers(folder: pathlib.Path) -> None:
    """Gives the routers of a ragged model random biases and condensers."""
    path = expert_trace.weights_file(folder)
    tensors = safetensors.torch.load_file(path)
    config = json.loads((folder / "config.json").read_text())
    generator = torch.Generator().manual_seed(5)
    config["fettle"]["format"] = 2
    routers = {}
    for name in tensors:
        if match := ROUTER.fullmatch(name):
            layer = int(re.search(r"layers\.(\d+)\.", name).group(1))
            routers[layer] = match.group(1)
    for index, layer in enumerate(config["fettle"]["layers"]):
        if layer is None:
            continue
        count = len(layer["expert_widths"])
        order = torch.randperm(count, generator=generator).tolist()
        layer["condensers"] = sorted(order[: (index + 1) % layer["top_k"]])
        layer["router_bias"] = True
        if routers[index] + ".bias" not in tensors:
            tensors[routers[index] + ".logit_bias"] = 2 * torch.randn(
                count, generator=generator
            )
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


def assert_same(
    model: torch.nn.Module,
    build_dir: pathlib.Path,
    folder: pathlib.Path,
    ids: torch.Tensor,
) -> None:
    test_export.assert_close(
        test_export.transformers_logits(model, ids),
        expert_trace.fettle_logits(build_dir, folder, ids),
    )


@pytest.mark.parametrize("scored", VARIANTS, indirect=True)
def test_ragged_logits(scored, fettle, build_dir, ids, tmp_path):
    trimmed = test_export.trim(fettle, scored, keep=0.4, repair="constant")
    add_condensers(trimmed)
    exported = test_export.export(
        fettle, trimmed, "--format", "hf-code", "--dtype", "float32"
    )
    model = load(exported)
    assert_same(model, build_dir, trimmed, ids)
    widths = json.loads((trimmed / "config.json").read_text())["fettle"]
    stored = sum(
        sum(layer["expert_widths"]) for layer in widths["layers"] if layer
    )
    assert stored == sum(
        weight.shape[0] * weight.shape[2]
        for name, weight in model.named_parameters()
        if re.search(r"experts\.groups\.\d+\.down_proj$", name)
    )
    if scored.name in ("qwen3", "mixtral_fused"):
        routed = model(input_ids=ids, labels=ids, output_router_logits=True)
        assert routed.router_logits
    model.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    for (name, before), (_, after) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert torch.equal(before, after), name
    assert_same(again, build_dir, trimmed, ids)


@pytest.mark.parametrize("scored", ["deepseek_v3", "lfm2"], indirect=True)
def test_cut_experts_are_absent(scored, fettle, build_dir, ids):
    trimmed = test_export.trim(
        fettle, scored, keep=0.6, unit="expert", scope="global", score="reap"
    )
    exported = test_export.export(fettle, trimmed, "--format", "hf-code")
    model = load(exported)
    counts = {
        moe_parts.router_of(layer).shape[0]
        for layer in model.model.layers
        if moe_parts.block_of(layer) is not None
    }
    assert len(counts) > 1
    assert_same(model, build_dir, trimmed, ids)
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(hidden) == len(model.model.layers) + 1
    prompt = ids[:2, :7]
    greedy = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0,
              "eos_token_id": None}
    cached = model.generate(prompt, use_cache=True, **greedy)
    assert torch.equal(cached, model.generate(prompt, use_cache=False, **greedy))


WHOLE = {
    "gemma4": "gemma4_text",
    "glm4v_moe": "glm4v_moe_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
}


@pytest.mark.parametrize(
    "whole", WHOLE if VARIANTS is ALL else ["glm4v_moe"]
)
def test_a_model_that_also_sees(whole, fettle, build_dir, ids, tmp_path):
    folder = nested_models.make(whole, WHOLE[whole], tmp_path / "model")
    expert_trace.write_tokenizer(folder)
    ids = ids % nested_models.IMAGE_TOKEN
    data = expert_trace.write_ids(tmp_path / "data.jsonl", ids)
    expert_trace.run(fettle, "analyze", folder, "--data", data, "--out",
                     tmp_path / "scores", "--scores", "obs")
    trimmed = test_export.trim(fettle, folder, keep=0.4, repair="constant")
    add_condensers(trimmed)
    exported = test_export.export(fettle, trimmed, "--format", "hf-code")
    model = load(exported)
    assert_same(model, build_dir, trimmed, ids)
    stock = nested_models.load(folder).state_dict()
    seeing = [name for name in stock if nested_models.is_carried(name)]
    assert seeing
    for name in seeing:
        assert torch.equal(model.state_dict()[name], stock[name]), name


def experts_of(model: torch.nn.Module, layer: int, width: int) -> list[int]:
    """The experts of one width."""
    widths = model.config.fettle_experts["layers"][layer]["expert_widths"]
    return [expert for expert, found in enumerate(widths) if found == width]


def loss_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return expert_trace.loss_sum(model, ids) / ids.numel()


class Pairs:
    """The trainable A and B of a PEFT model, and copies with gradients of
    their own."""

    def __init__(self, lora: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(2)
        self.own = {
            name: weight
            for name, weight in lora.named_parameters()
            if weight.requires_grad
        }
        for weight in self.own.values():
            weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
        self.copies = {
            name: weight.detach().clone().requires_grad_()
            for name, weight in self.own.items()
        }

    def copy(self, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        (a,) = [w for n, w in self.copies.items() if key in n and "lora_A" in n]
        (b,) = [w for n, w in self.copies.items() if key in n and "lora_B" in n]
        return a, b


def with_pairs(
    stock: torch.nn.Module, pairs: Pairs, members: list[int], width: int
) -> dict[str, torch.Tensor]:
    """The stock model's parameters with 3 B A added: of every query
    projection, and of some experts of layer 1."""
    changed = dict(stock.named_parameters())
    for index in range(len(stock.model.layers)):
        a, b = pairs.copy(f"layers.{index}.self_attn.q_proj")
        name = f"model.layers.{index}.self_attn.q_proj.weight"
        changed[name] = changed[name] + 3 * (b @ a)
    a, b = pairs.copy("layers.1.mlp.experts")
    count = len(members)
    delta = torch.einsum(
        "ore,eri->eoi", b.view(len(b), 2, count), a.view(count, 2, width)
    )
    name = "model.layers.1.mlp.experts.down_proj"
    filled = torch.zeros_like(changed[name])
    filled[members, :, :width] = 3 * delta
    changed[name] = changed[name] + filled
    return changed


@pytest.mark.parametrize("scored", ["qwen3"], indirect=True)
def test_a_step_of_lora(scored, fettle, ids):
    """Pairs beside attention and experts: PEFT's gradients and its step are
    those of the stock model, filled up, with B A added to its weights."""
    trimmed = test_export.trim(fettle, scored, keep=0.5, round=8)
    padded = test_export.export(fettle, trimmed, "--format", "hf-padded")
    stock = tiny_models.load(padded.rename(padded.with_name("padded")))
    model = load(test_export.export(fettle, trimmed, "--format", "hf-code"))
    experts = model.model.layers[1].mlp.experts
    group = max(range(len(experts.sizes)), key=lambda g: experts.sizes[g])
    width = experts.group_widths[group]
    members = experts_of(model, 1, width)
    assert len(members) > 1
    options = peft.LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["q_proj"],
        target_parameters=[f"layers.1.mlp.experts.groups.{group}.down_proj"],
    )
    lora = peft.get_peft_model(model, options)
    pairs = Pairs(lora)
    assert len(pairs.own) == 2 * (len(stock.model.layers) + 1)
    changed = with_pairs(stock, pairs, members, width)

    def reference(input_ids):
        return torch.func.functional_call(
            stock, changed, (), {"input_ids": input_ids}
        )

    expected = loss_of(reference, ids)
    expected.backward()
    found = loss_of(lora, ids)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    for name, weight in pairs.own.items():
        test_export.assert_close(weight.grad, pairs.copies[name].grad)
    torch.optim.SGD(pairs.own.values(), lr=0.1).step()
    assert loss_of(lora, ids) < found


@pytest.mark.parametrize("scored", ["gpt_oss"], indirect=True)
def test_gradients_of_all_weights(scored, fettle, ids):
    trimmed = test_export.trim(fettle, scored, keep=0.5)
    padded = test_export.export(fettle, trimmed, "--format", "hf-padded")
    reference = tiny_models.load(padded.rename(padded.with_name("padded")))
    model = load(test_export.export(fettle, trimmed, "--format", "hf-code"))
    loss_of(reference, ids).backward()
    loss_of(model, ids).backward()
    for index, layer in enumerate(model.model.layers):
        stock = reference.model.layers[index].mlp.experts
        for group, width in zip(
            layer.mlp.experts.groups, layer.mlp.experts.group_widths
        ):
            members = experts_of(model, index, width)
            test_export.assert_close(
                group.down_proj.grad,
                stock.down_proj.grad[members, :width].transpose(1, 2),
            )
            test_export.assert_close(
                group.gate_up_proj.grad,
                stock.gate_up_proj.grad[members, :, : 2 * width].transpose(
                    1, 2
                ),
            )


def refusal(fettle: pathlib.Path, *arguments: object) -> str:
    done = subprocess.run(
        [str(fettle), *map(str, arguments), "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2)  # 2: an option makes no sense
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_head_can_not_be_kept(fettle, tmp_path):
    folder = tiny_models.make("deepseek_v3", tmp_path)
    nested_models.add_head(folder, layers=3, source=2)
    export = ("export", folder, "--format", "hf-code", "--out", tmp_path / "out")
    assert "--mtp drop" in refusal(fettle, *export, "--mtp", "keep")
    assert not (tmp_path / "out").exists()
    expert_trace.run(fettle, *export)
    assert load(tmp_path / "out").config.num_nextn_predict_layers == 0


def test_shards(fettle, tmp_path):
    folder = tiny_models.make("qwen3", tmp_path)
    export = ("export", folder, "--out", tmp_path / "out", "--format")
    for size, words in (("5000", "unit"), ("0", "found 0"), ("-1KB", "size"),
                        ("1XB", "size")):
        assert words in refusal(fettle, *export, "hf", "--shard-size", size)
    assert "one file" in refusal(fettle, *export, "gguf", "--shard-size", "1GB")
    assert not (tmp_path / "out").exists()
    for form, trust in (("hf", False), ("hf-code", True)):
        out = tmp_path / form
        expert_trace.run(fettle, "export", folder, "--out", out, "--format",
                         form, "--shard-size", "60KB")
        files = sorted(out.glob("*.safetensors"))
        assert len(files) > 2
        index = json.loads((out / "model.safetensors.index.json").read_text())
        stored = {}
        for file in files:
            tensors = safetensors.torch.load_file(file)
            size = sum(t.nbytes for t in tensors.values())
            assert size <= 60_000 or len(tensors) == 1
            stored |= dict.fromkeys(tensors, file.name)
        assert index["weight_map"] == stored
        model = transformers.AutoModelForCausalLM.from_pretrained(
            out, trust_remote_code=trust)
        assert index["metadata"]["total_size"] == sum(
            weight.nbytes for weight in model.parameters())
