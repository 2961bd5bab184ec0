# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of commands on models of very many small tensors, which
show what is more than linear in their number. Prints JSON.

    python tests/bench/many_tensors.py build/cpu/fettle
        [--tensors 150000] [--shards 64] [--layers 48] [--experts 128]
        [--threads 1] [--only open|export]

"open" is `inspect` of about --tensors tensors in one file and in --shards files
with an index. "export" makes a model of --layers x --experts, opens it,
quantizes it (int4, rtn), and exports both.
"""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import time

import torch

HIDDEN, WIDTH, VOCAB = 32, 32, 64


def shapes(layers, experts):
    """Of a Qwen3-MoE model, by name."""
    result = {"model.embed_tokens.weight": [VOCAB, HIDDEN]}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            result[f"{prefix}{norm}.weight"] = [HIDDEN]
        for norm in ("q_norm", "k_norm"):
            result[f"{prefix}self_attn.{norm}.weight"] = [HIDDEN]
        for part in "qkvo":
            result[f"{prefix}self_attn.{part}_proj.weight"] = [HIDDEN, HIDDEN]
        result[f"{prefix}mlp.gate.weight"] = [experts, HIDDEN]
        for e in range(experts):
            for part in ("gate_proj", "up_proj", "down_proj"):
                name = f"{prefix}mlp.experts.{e}.{part}.weight"
                result[name] = [WIDTH, HIDDEN]
    result["model.norm.weight"] = [HIDDEN]
    result["lm_head.weight"] = [VOCAB, HIDDEN]
    return result


def write_file(path, tensors, values):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {
            "dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while end > 0:
            file.write(values[:min(end, len(values))])
            end -= min(end, len(values))


def make(folder, layers, experts, shards=1):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "qwen3_moe", "dtype": "bfloat16", "vocab_size": VOCAB,
        "hidden_size": HIDDEN, "num_hidden_layers": layers, "head_dim": HIDDEN,
        "num_attention_heads": 1, "num_key_value_heads": 1,
        "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH,
        "num_experts": experts, "num_experts_per_tok": 2,
        "max_position_embeddings": 512}))
    random = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    values = (0.1 * random).bfloat16().view(torch.int16).numpy().tobytes()
    tensors = shapes(layers, experts)
    if shards == 1:
        write_file(folder / "model.safetensors", tensors, values)
        return len(tensors)
    names = list(tensors)
    size = -(-len(names) // shards)
    index = {}
    for shard in range(0, len(names), size):
        part = names[shard:shard + size]
        file = f"model-{shard // size + 1:05}-of-{shards:05}.safetensors"
        write_file(folder / file, {n: tensors[n] for n in part}, values)
        index.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}, indent=2))
    return len(names)


def measure(command):
    """Seconds, CPU seconds and MiB at the peak of one run."""
    start = time.monotonic()
    with subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_WAIT_POLICY": "passive"}) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return {
        "seconds": round(time.monotonic() - start, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fettle", type=pathlib.Path)
    parser.add_argument("--tensors", type=int, default=150_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--only", choices=("open", "export"))
    options = parser.parse_args()
    result = {"nothing": measure([options.fettle, "--version"])}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)

        def run(name, *arguments):
            result[name] = measure(
                [options.fettle, *arguments, "--threads", options.threads])

        if options.only != "export":
            experts = options.tensors // options.layers // 3
            for shards in (1, options.shards):
                model = folder / f"open{shards}"
                count = make(model, options.layers, experts, shards)
                run(f"inspect, {count} tensors, {shards} files",
                    "inspect", model)
        if options.only != "open":
            model, packed = folder / "model", folder / "packed"
            make(model, options.layers, options.experts)
            run("inspect", "inspect", model)
            for form in ("hf", "hf-padded"):
                run(f"export {form}", "export", model, "--format", form,
                    "--out", folder / form)
            run("quant", "quant", model, "--bits", "int4", "--method", "rtn",
                "--out", packed)
            run("inspect packed", "inspect", packed)
            run("export compressed-tensors", "export", packed, "--format",
                "compressed-tensors", "--nearest", "--out", folder / "ct")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
