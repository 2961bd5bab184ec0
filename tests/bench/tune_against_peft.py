# SPDX-License-Identifier: Apache-2.0
"""Times steps of `fettle tune` against LoRA by transformers and PEFT on the same
model, ids, batch and threads or card (with `--method lora`: rank and targets
too), by processes in turns, and measures the peak memory of both: on the CPU
from outside, on a card what libtorch reserved; prints JSON.

    python tests/bench/tune_against_peft.py MODEL [--method lora|usaf|router]
        [--sequences 8] [--length 512] [--threads 2] [--steps 4] [--rounds 5]
        [--rank 16] [--ram 2GiB] [--peft-dtype float32]
        [--device cuda] [--dtype bfloat16] [--vram 8GiB]

`router` has no gradient of a large weight: the plain backward sweep.

A process' first step warms up and isn't counted. The first losses must agree.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import build_folder

LR = 1e-4
ALPHA_PER_RANK = 2


def method(options):
    if options.method == "lora":
        return ["--method", "lora", "--rank", options.rank,
                "--lora-alpha", ALPHA_PER_RANK * options.rank]
    if options.method == "usaf":
        return ["--method", "usaf", "--frac", 0.05, "--router", "frozen"]
    return ["--method", "router"]


def document(options, vocab):
    """One document whose cuts into sequences share a token with the next; a
    language model's cost doesn't depend on ids beyond routing."""
    count = options.steps * options.sequences * (options.length - 1) + 1
    return [(7919 * i * i + i) % vocab for i in range(count)]


def measured(command):
    """The command's output, and its peak resident memory in bytes."""
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{command[0]} failed")
    return output, usage.ru_maxrss * 1024


def fettle(options, ids, folder):
    out = folder / "tuned"
    command = [
        build_folder.find("fettle"), "tune", options.model, "--data", ids,
        "--out", out, *method(options), "--lr", LR,
        "--warmup-steps", 0, "--steps", options.steps, "--save-every", 0,
        "--eval-every", 0, "--seq-len", options.length, "--tokens-per-step",
        options.sequences * options.length, "--threads", options.threads,
        "--device", options.device, "--compute-dtype", options.dtype,
        "--quiet", "--json", "-"]
    for name in ("ram", "vram"):
        if value := getattr(options, name):
            command += [f"--{name}", value]
    output, peak = measured(command)
    if options.device != "cpu":
        peak = json.loads(output)["peak_vram_bytes"]
    lines = [json.loads(line)
             for line in (out / "metrics.jsonl").read_text().splitlines()]
    for file in out.iterdir():
        file.unlink()
    out.rmdir()
    return {"seconds": [sum(line["seconds"].values()) for line in lines],
            "losses": [line["loss"] for line in lines], "peak_bytes": peak}


def with_peft(options, ids, experts):
    output, peak = measured(
        [sys.executable, __file__, options.model, "--serve", ids, "--experts",
         experts, "--peft-dtype", options.peft_dtype, "--rank", options.rank,
         "--device", options.device,
         "--threads", options.threads,
         "--steps", options.steps, "--sequences", options.sequences,
         "--length", options.length])
    return {"peak_bytes": peak, **json.loads(output)}


def serve(options):
    """The other side's process: what people write with PEFT."""
    import peft
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model, dtype=getattr(torch, options.peft_dtype),
        attn_implementation="sdpa",
        experts_implementation=options.experts).to(options.device)
    model = peft.get_peft_model(model, peft.LoraConfig(
        r=options.rank, lora_alpha=ALPHA_PER_RANK * options.rank,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        task_type="CAUSAL_LM"))
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=0.0)
    ids = json.loads(pathlib.Path(options.serve).read_text())["input_ids"]
    rows = torch.tensor(ids, device=options.device).unfold(
        0, options.length, options.length - 1)
    seconds, losses = [], []
    for step in range(options.steps):
        first = step * options.sequences
        batch = rows[first:first + options.sequences]
        begin = time.perf_counter()
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if options.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    result = {"seconds": seconds, "losses": losses,
              "trainable": sum(p.numel() for p in weights)}
    if options.device != "cpu":
        result["peak_bytes"] = torch.cuda.max_memory_reserved()
    print(json.dumps(result))


def compare(options):
    config = json.loads(
        (pathlib.Path(options.model) / "config.json").read_text())
    tokens = options.sequences * options.length
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ids = folder / "ids.jsonl"
        ids.write_text(json.dumps(
            {"input_ids": document(options, config["vocab_size"])}) + "\n")
        rounds = {"fettle": [], "grouped_mm": [], "eager": []}
        for _ in range(options.rounds):
            rounds["fettle"].append(fettle(options, ids, folder))
            for experts in ("grouped_mm", "eager"):
                rounds[experts].append(with_peft(options, ids, experts))
    # Both start from B = 0, so that the first losses are the base's.
    exact = options.peft_dtype == options.dtype == "float32"
    tolerance = 1e-4 if exact else 1e-2
    for one, other in zip(rounds["fettle"], rounds["eager"], strict=True):
        assert abs(one["losses"][0] / other["losses"][0] - 1) < tolerance

    def median_step(run):
        return statistics.median(run["seconds"][1:])

    result = {
        "model": config["model_type"], "method": options.method,
        "device": options.device, "dtype": options.dtype,
        "tokens": tokens, "rank": options.rank,
        "threads": options.threads, "rounds": options.rounds,
        "peft_dtype": options.peft_dtype,
        "trainable": rounds["eager"][0]["trainable"]}
    for side, runs in rounds.items():
        result[side] = {
            "tokens_per_second":
                tokens / statistics.median(map(median_step, runs)),
            "peak_bytes": max(run["peak_bytes"] for run in runs)}
    for experts in ("grouped_mm", "eager"):
        result[experts]["ratio"] = statistics.median(
            median_step(other) / median_step(one)
            for one, other in zip(
                rounds["fettle"], rounds[experts], strict=True))
    print(json.dumps(result, indent=2))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument(
        "--method", choices=["lora", "usaf", "router"], default="lora")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--ram", default="")
    parser.add_argument("--vram", default="")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"],
                        default="float32")
    parser.add_argument("--peft-dtype", choices=["float32", "bfloat16"],
                        default="float32")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--experts", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
