# SPDX-License-Identifier: Apache-2.0
"""Writes a model folder of random weights of any family and size, a shard at a
time, for measuring speed and memory. transformers says which tensors it has.

    python tests/bench/make_random_model.py OUT [--shape qwen3_moe]
        [--hidden 1024] [--experts 32] [--width 512] [--layers 8] [--top-k 4]
        [--vocab 4096] [--set KEY=VALUE ...]
        [--form bf16|fp8|mxfp4] [--tokenizer MODEL]

Shapes are in shapes.py: one of each family for speed, and some models in their
real size. `--set` gives the text's configuration a key, its value as JSON.
`fp8` has a scale a block of 128 x 128 and a tensor for each expert, as those
who publish it do; `mxfp4` stores experts as gpt-oss does.
"""

import argparse
import json
import pathlib
import re
import shutil
import struct

import shapes
import torch
import transformers
from transformers import core_model_loading

SHARD_BYTES = 4 << 30
FP8_BLOCK = 128
# What stays plain in few bits: all but the large matrices of the layers.
PLAIN = re.compile(
    r"embed|lm_head|norm|router|mlp\.gate\.|mixer\.gate\.|conv1d|visual|vision"
    r"|shared_expert_gate|in_proj_[ab]\.|bias|sinks|A_log|dt_bias")
EXPERT_STACK = re.compile(r"(.*experts)\.(gate_up_proj|down_proj)$")


class Values:
    """Random numbers, drawn once: a tensor takes a part of them from anywhere.
    Speed does not depend on whether two tensors have rows in common."""

    SIZE = 1 << 26

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.normal = torch.randn(
            self.SIZE, generator=self.generator).bfloat16()
        self.codes = torch.randint(
            0, 256, (self.SIZE,), dtype=torch.uint8, generator=self.generator)
        # E4M3 between 2^-6 and 2: none is NaN.
        self.fp8 = (self.codes & 0xBF).view(torch.float8_e4m3fn)

    def take(self, pool, count):
        parts = []
        while count > 0:
            some = min(count, self.SIZE // 2)
            begin = int(torch.randint(
                self.SIZE - some, (1,), generator=self.generator))
            parts.append(pool[begin:begin + some])
            count -= some
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def plain(self, name, shape):
        count = max(1, int(torch.Size(shape).numel()))
        if name.endswith("A_log"):
            return torch.rand(shape, generator=self.generator) * 2
        if "norm" in name or name.endswith(("layer_scalar", ".scale", ".D")):
            return torch.ones(shape, dtype=torch.bfloat16)
        if "correction_bias" in name or name.endswith("expert_bias"):
            return torch.zeros(shape)
        scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.02
        values = self.take(self.normal, count) * scale
        return values.bfloat16().reshape(shape)


def bf16(values, name, shape):
    return {name: values.plain(name, shape)}


def fp8(values, name, shape):
    stack = EXPERT_STACK.match(name)
    if stack:
        found = {}
        half = shape[1] // 2
        parts = ([("gate_proj", (half, shape[2])), ("up_proj", (half, shape[2]))]
                 if stack[2] == "gate_up_proj" else [("down_proj", shape[1:])])
        for expert in range(shape[0]):
            for part, size in parts:
                found |= fp8(
                    values, f"{stack[1]}.{expert}.{part}.weight", size)
        return found
    if PLAIN.search(name) or len(shape) != 2:
        return bf16(values, name, shape)
    grid = [-(-n // FP8_BLOCK) for n in shape]
    scales = values.take(values.normal, grid[0] * grid[1]).float().abs()
    codes = values.take(values.fp8, shape[0] * shape[1])
    return {name: codes.reshape(shape),
            name + "_scale_inv":
                ((scales + 0.5) * shape[1] ** -0.5).reshape(grid)}


def mxfp4(values, name, shape):
    stack = EXPERT_STACK.match(name)
    if not stack:
        return bf16(values, name, shape)
    experts, inputs, outputs = shape
    groups = inputs // 32
    blocks = values.take(values.codes, experts * outputs * groups * 16)
    exponents = values.take(values.codes, experts * outputs * groups) % 3
    return {name + "_blocks": blocks.reshape(experts, outputs, groups, 16),
            name + "_scales":
                (exponents + 119).reshape(experts, outputs, groups)}


FORMS = {"bf16": (bf16, None),
         "fp8": (fp8, {"quant_method": "fp8", "fmt": "e4m3",
                       "activation_scheme": "dynamic",
                       "weight_block_size": [FP8_BLOCK, FP8_BLOCK]}),
         "mxfp4": (mxfp4, {"quant_method": "mxfp4"})}


def tensors_of(config):
    """Names and shapes as transformers saves them."""
    auto = (transformers.AutoModelForImageTextToText
            if hasattr(config, "vision_config")
            else transformers.AutoModelForCausalLM)
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.bfloat16)
    state = core_model_loading.revert_weight_conversion(
        model, model.state_dict())
    if config.get_text_config().tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def write_shard(path, tensors):
    """As safetensors has it, without a second copy in memory."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    types = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8",
             torch.float8_e4m3fn: "F8_E4M3"}
    for name, tensor in tensors.items():
        header[name] = {"dtype": types[tensor.dtype],
                        "shape": list(tensor.shape),
                        "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().view(torch.uint8).numpy().data)


class Shards:
    """Collects tensors and writes a file whenever they are many."""

    def __init__(self, folder):
        self.folder, self.tensors, self.bytes = folder, {}, 0
        self.index, self.files, self.total = {}, 0, 0

    def add(self, tensors):
        self.tensors |= tensors
        self.bytes += sum(t.nbytes for t in tensors.values())
        if self.bytes >= SHARD_BYTES:
            self.flush()

    def flush(self):
        if not self.tensors:
            return
        self.files += 1
        name = f"model-{self.files:05}.safetensors"
        write_shard(self.folder / name, self.tensors)
        self.index |= dict.fromkeys(self.tensors, name)
        self.total += self.bytes
        self.tensors, self.bytes = {}, 0

    def close(self):
        self.flush()
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(
            {"metadata": {"total_size": self.total},
             "weight_map": self.index}))


def configuration(options):
    shape = json.loads(json.dumps(shapes.config_of(options.shape)))
    keys = {"layers": ["num_hidden_layers"], "hidden": ["hidden_size"],
            "vocab": ["vocab_size"],
            "width": ["moe_intermediate_size", "intermediate_size"],
            "experts": ["num_experts", "num_local_experts",
                        "n_routed_experts", "moe_num_experts"],
            "top_k": ["num_experts_per_tok", "moe_k", "top_k_experts"]}
    text = shape.get("text_config", shape)
    for option, names in keys.items():
        value = getattr(options, option)
        if value is not None:
            text[next((n for n in names if n in text), names[0])] = value
    if options.hidden is not None and "head_dim" in text:
        text["num_attention_heads"] = options.hidden // text["head_dim"]
        text["num_key_value_heads"] = max(
            1, text["num_attention_heads"] // 2)
    for setting in options.set:
        key, value = setting.split("=", 1)
        text[key] = json.loads(value)
    return transformers.AutoConfig.for_model(**shape)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shape", default="qwen3_moe",
                        choices=[*shapes.SPEED, *shapes.REAL])
    for name in ("hidden", "experts", "width", "layers", "top-k", "vocab"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--form", choices=FORMS, default="bf16")
    parser.add_argument("--tokenizer", type=pathlib.Path)
    options = parser.parse_args()

    config = configuration(options)
    store, quantization = FORMS[options.form]
    options.out.mkdir(parents=True)
    values, shards = Values(), Shards(options.out)
    for name, shape in tensors_of(config).items():
        shards.add(store(values, name, shape))
    shards.close()

    written = config.to_dict() | {"dtype": "bfloat16"}
    if quantization:
        written["quantization_config"] = quantization
    (options.out / "config.json").write_text(
        json.dumps(written, indent=2, default=str))
    if options.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(options.tokenizer / name, options.out / name)
    print(f"{shards.total / 2**30:.2f} GiB in {len(shards.index)} tensors")


if __name__ == "__main__":
    main()
