# SPDX-License-Identifier: Apache-2.0
"""Quantizes a Qwen3-MoE by GPTQ in plain PyTorch and writes it as an ordinary
folder; what fettle's results are held against. Prints JSON.

    python tests/bench/quantize_in_torch.py MODEL IDS OUT --recipe qmoe|int4

`qmoe`: the experts, as QMoE does it: trits of a row's least, no and greatest
weight, damping of 0.1, every token of an expert alike, rounding to nearest for
experts without one. Adds the bits that QMoE's format takes.
`int4`: experts and attention, symmetric, a scale for 128 weights, damping 0.01.
"""

import argparse
import json
import pathlib
import shutil
import time

import torch
import transformers

import qmoe_code
import torch_gptq


class Qmoe:
    damping = 0.1
    attention = False
    dtype = torch.bfloat16  # holds all that was kept, and the levels

    def __init__(self):
        self.size = qmoe_code.Size()

    def quantize(self, weights, moments):
        factors = torch_gptq.inverse_factors(moments, self.damping)
        # Sixteen experts together, as there.
        parts = [torch_gptq.gptq(part, factor, torch_gptq.MinMaxTrits(part))
                 for part, factor in zip(weights.split(16), factors.split(16))]
        rounded = torch.cat(parts)
        self.size.add(torch.where(
            rounded > 0, 1, torch.where(rounded < 0, 2, 0))
            .flatten(0, 1).numpy())
        return rounded

    def to_json(self):
        return self.size.to_json()


class Int4:
    damping = 0.01
    attention = True
    dtype = torch.float32  # a level times a scale is more than bf16 holds

    def quantize(self, weights, moments):
        factors = torch_gptq.inverse_factors(moments, self.damping)
        return torch_gptq.gptq(
            weights, factors, torch_gptq.SymmetricInts(4, 128))

    def to_json(self):
        return {}


def quantize_layer(layer, moments, recipe):
    experts = layer.mlp.experts
    experts.gate_up_proj.copy_(
        recipe.quantize(experts.gate_up_proj, moments.gate_up))
    experts.down_proj.copy_(recipe.quantize(experts.down_proj, moments.down))
    if not recipe.attention:
        return
    attention = layer.self_attn
    for names, source in ((("q_proj", "k_proj", "v_proj"), attention.q_proj),
                          (("o_proj",), attention.o_proj)):
        weights = [getattr(attention, name).weight for name in names]
        rounded = recipe.quantize(
            torch.cat(weights)[None], moments.of_projection[source][None])[0]
        for weight, part in zip(
                weights, rounded.split([len(weight) for weight in weights])):
            weight.copy_(part)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("ids", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--recipe", choices=["qmoe", "int4"], required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    recipe = {"qmoe": Qmoe, "int4": Int4}[options.recipe]()
    begin = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.float32)
    rows = [json.loads(line)["input_ids"]
            for line in options.ids.read_text().splitlines()]
    sweep = torch_gptq.Sweep(model, rows)
    for layer in model.model.layers:
        moments = torch_gptq.Moments(sweep, layer, recipe.attention)
        quantize_layer(layer, moments, recipe)
        sweep.advance(layer)
    model.to(recipe.dtype).save_pretrained(options.out)
    seconds = time.perf_counter() - begin
    for file in options.model.glob("tokenizer*.json"):
        shutil.copyfile(file, options.out / file.name)
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(),
                      "tokens": sum(map(len, rows)), **recipe.to_json()}))


if __name__ == "__main__":
    main()
