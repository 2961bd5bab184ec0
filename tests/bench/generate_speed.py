# SPDX-License-Identifier: Apache-2.0
"""Times `fettle generate` on a model as it is and on models that `fettle quant`
makes of it (rounded to nearest: speed doesn't depend on the codes), by
processes in turns, with their peak memory measured from outside (on a card:
what libtorch reserved), and transformers' generate in bfloat16 beside it.
Prints JSON.

    python tests/bench/generate_speed.py MODEL [--tokens 64] [--rounds 5]
        [--threads 2] [--device cuda] [--bits int8 int4 int3 int2 ternary ternary-coded]

make_random_model.py makes a model of any size (with --tokenizer).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import build_folder
import tune_against_peft

PROMPT = "The experts that matter least are"


def quantize(options, scheme, out):
    subprocess.run(
        [build_folder.find("fettle"), "quant", options.model, "--out", out,
         "--bits", scheme, "--method", "rtn", "--attention",
         scheme if scheme.startswith("int") else "int4", "--quiet"],
        check=True, stdout=subprocess.DEVNULL)


def fettle(options, folder, report):
    _, peak = tune_against_peft.measured(
        [build_folder.find("fettle"), "generate", folder, "--prompt", PROMPT,
         "--max-new-tokens", options.tokens, "--threads", options.threads,
         "--device", options.device, "--quiet", "--json", report])
    result = json.loads(report.read_text())
    if options.device != "cpu":
        peak = result["peak_vram_bytes"]
    return {"tokens_per_second": result["tokens_per_second"],
            "peak_bytes": peak, "tokens": result["tokens"]}


def transformers(options):
    output, peak = tune_against_peft.measured(
        [sys.executable, __file__, options.model, "--serve", "--tokens",
         options.tokens, "--threads", options.threads, "--device",
         options.device])
    return {"peak_bytes": peak, **json.loads(output)}


def serve(options):
    """The other side's process: seconds of all tokens but the first."""
    import time

    import torch
    import transformers

    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.bfloat16).to(options.device)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids.to(options.device)

    def seconds(tokens):
        begin = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids),
                       max_new_tokens=tokens, min_new_tokens=tokens,
                       do_sample=False)
        return time.perf_counter() - begin

    seconds(2)
    first = seconds(1)
    result = {
        "tokens": options.tokens, "tokens_per_second":
            (options.tokens - 1) / (seconds(options.tokens) - first)}
    if options.device != "cpu":
        result["peak_bytes"] = torch.cuda.max_memory_reserved()
    print(json.dumps(result))


def compare(options):
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = pathlib.Path(name)
        sides = {"bf16": options.model}
        for scheme in options.bits:
            sides[scheme] = work / scheme
            quantize(options, scheme, sides[scheme])
        rounds = {side: [] for side in [*sides, "transformers bf16"]}
        for _ in range(options.rounds):
            for side, folder in sides.items():
                rounds[side].append(fettle(options, folder, work / "report"))
            rounds["transformers bf16"].append(transformers(options))
    result = {"tokens": options.tokens, "threads": options.threads,
              "rounds": options.rounds, "device": options.device}
    for side, runs in rounds.items():
        result[side] = {
            "tokens_per_second": statistics.median(
                run["tokens_per_second"] for run in runs),
            "times_bf16": statistics.median(
                run["tokens_per_second"] / plain["tokens_per_second"]
                for run, plain in zip(runs, rounds["bf16"], strict=True)),
            "peak_bytes": max(run["peak_bytes"] for run in runs)}
    print(json.dumps(result, indent=2))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--bits", nargs="+", default=[
        "int8", "int4", "int3", "int2", "ternary", "ternary-coded"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=pathlib.Path, help="for the folders")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    serve(options) if options.serve else compare(options)


if __name__ == "__main__":
    main()
