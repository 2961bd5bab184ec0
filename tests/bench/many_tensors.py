# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of commands on models of very many small tensors, which
show what is more than linear in their number. Prints JSON.

    python tests/bench/many_tensors.py build/cpu/fettle
        [--tensors 150000] [--shards 64] [--layers 48] [--experts 128]
        [--threads 1] [--only open|export]

"open" is `inspect` of about --tensors tensors in one file, in --shards files
with an index, and in as many files of compressed-tensors' int4, which has three
tensors a matrix. "export" makes a model of --layers x --experts, opens it,
quantizes it (int4, rtn), and exports both.

Only what needs little memory is imported: a child's peak begins at its parent's.
"""

import argparse
import array
import json
import math
import os
import pathlib
import random
import struct
import subprocess
import tempfile
import time

HIDDEN, WIDTH, VOCAB = 32, 32, 64
BYTES = {"BF16": 2, "I32": 4, "I64": 8}
# What config.json says of matrices that compressed-tensors wrote.
CODED = {
    "quant_method": "compressed-tensors", "format": "pack-quantized",
    "config_groups": {"group_0": {
        "targets": ["Linear"],
        "weights": {
            "num_bits": 4, "type": "int", "symmetric": True,
            "strategy": "group", "group_size": HIDDEN}}},
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*mlp.gate$"]}


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


def coded(tensors):
    """The experts' matrices in int4: codes, scales and shapes."""
    for name, shape in tensors.items():
        if ".experts." not in name:
            yield name, ("BF16", shape)
            continue
        rows, columns = shape
        yield f"{name}_packed", ("I32", [rows, columns // 8])
        yield f"{name}_scale", ("BF16", [rows, columns // HIDDEN])
        yield f"{name}_shape", ("I64", [2])


def write_file(path, tensors, values):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors:
        begin, end = end, end + BYTES[dtype] * math.prod(shape)
        header[name] = {
            "dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for dtype, shape in dict(tensors).values():
            if dtype == "I64":
                file.write(struct.pack("<2q", WIDTH, HIDDEN))
            else:
                file.write(values[:BYTES[dtype] * math.prod(shape)])


def make(folder, layers, experts, shards=1, codes=False):
    folder.mkdir(parents=True)
    config = {
        "model_type": "qwen3_moe", "dtype": "bfloat16", "vocab_size": VOCAB,
        "hidden_size": HIDDEN, "num_hidden_layers": layers, "head_dim": HIDDEN,
        "num_attention_heads": 1, "num_key_value_heads": 1,
        "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH,
        "num_experts": experts, "num_experts_per_tok": 2,
        "max_position_embeddings": 512}
    if codes:
        config["quantization_config"] = CODED
    (folder / "config.json").write_text(json.dumps(config))
    plain = shapes(layers, experts)
    tensors = list(
        coded(plain) if codes
        else ((name, ("BF16", shape)) for name, shape in plain.items()))
    # Small values of both signs, as bfloat16.
    draw = random.Random(0).choices
    values = array.array(
        "H", draw([*range(0x3C00, 0x3E00), *range(0xBC00, 0xBE00)], k=1 << 16)
    ).tobytes()
    if shards == 1:
        write_file(folder / "model.safetensors", tensors, values)
        return len(tensors)
    index = {}
    size = -(-len(tensors) // shards)
    for shard, first in enumerate(range(0, len(tensors), size), 1):
        part = tensors[first:first + size]
        file = f"model-{shard:05}-of-{shards:05}.safetensors"
        write_file(folder / file, part, values)
        index.update((name, file) for name, _ in part)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}, indent=2))
    return len(tensors)


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
            for shards, codes in (
                    (1, False), (options.shards, False), (options.shards, True)):
                model = folder / f"open{shards}{codes}"
                count = make(
                    model, options.layers, experts // (3 if codes else 1), shards,
                    codes)
                form = "int4" if codes else "bfloat16"
                run(f"inspect, {count} tensors, {shards} files, {form}",
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
