# SPDX-License-Identifier: Apache-2.0
"""Quantizes a model to W4A16, a scale for 128 weights, by llm-compressor's GPTQ
and writes the values that its codes stand for as an ordinary folder of fp32.
Needs an environment of its own: llmcompressor 0.14.0.1 and torchvision. Prints
JSON.

    python tests/bench/quantize_in_llmcompressor.py MODEL IDS OUT
        [--threads 1] [--experts routed|all] [--batch 8]

`all` is its default: every expert's statistics are of all tokens.
"""

import argparse
import json
import pathlib
import shutil
import time

import datasets
import llmcompressor
import torch
import transformers
from llmcompressor.modeling.moe.linearize import load_quantizable_moe
from llmcompressor.modifiers.gptq import GPTQModifier
from safetensors.torch import save_file


def write(model, source, out):
    """The weights under the names that the model's own folder has for them."""
    known = {name for file in source.glob("*.safetensors")
             for name in names_in(file)}
    tensors = {name: tensor.float().contiguous()
               for name, tensor in model.state_dict().items() if name in known}
    missing = known - set(tensors)
    if missing:
        raise SystemExit(f"weights without a counterpart: {sorted(missing)[:3]}")
    out.mkdir()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for file in [source / "config.json", *source.glob("tokenizer*.json")]:
        shutil.copyfile(file, out / file.name)


def names_in(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        return list(tensors.keys())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("ids", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--experts", choices=["routed", "all"], default="all")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [json.loads(line)["input_ids"]
            for line in options.ids.read_text().splitlines()]
    begin = time.perf_counter()
    with load_quantizable_moe():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            options.model, dtype=torch.float32)
    loaded = time.perf_counter()
    llmcompressor.oneshot(
        model=model,
        dataset=datasets.Dataset.from_dict({
            "input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]}),
        recipe=[GPTQModifier(targets="Linear", scheme="W4A16",
                             ignore=["lm_head", "re:.*mlp.gate$"])],
        num_calibration_samples=len(rows), max_seq_length=max(map(len, rows)),
        shuffle_calibration_samples=False, batch_size=options.batch,
        moe_calibrate_all_experts=options.experts == "all")
    done = time.perf_counter()
    write(model, options.model, options.out)
    print(json.dumps({
        "seconds": done - begin, "load_seconds": loaded - begin,
        "tokens": sum(map(len, rows)), "version": llmcompressor.__version__}))


if __name__ == "__main__":
    main()
