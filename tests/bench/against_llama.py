# SPDX-License-Identifier: Apache-2.0
"""Times `fettle serve` beside llama.cpp on the same weights: models that
`fettle quant` rounds and `fettle export --format gguf` hands over, by processes
in turns. Fettle answers over HTTP, llama.cpp is called in its own process by
llama-cpp-python. Prints JSON.

    python tests/bench/against_llama.py MODEL --llama-python PYTHON
        [--llama-lib DIR] [--bits int8 int4 ternary] [--activations full int8]
        [--prompt 512] [--tokens 96] [--parallel 8] [--rounds 3] [--threads 2]

PYTHON has llama-cpp-python 0.3.36; `--llama-lib` names a folder with another
build of its libraries. Figures of a side: tokens a second of one sequence and
of several together, their prompts not counted; seconds from a prompt to its
first token; peak resident memory. `ratio` is Fettle over llama.cpp, the median
of the rounds. Each run is told on the standard error as it ends.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

import build_folder
import server_client

RATES = ["one_tokens_per_second", "together_tokens_per_second",
         "first_token_seconds", "peak_bytes"]


def folders(options, scheme, work):
    """The model in few bits, and its GGUF."""
    packed, gguf = work / scheme, work / f"{scheme}-gguf"
    fettle = build_folder.find("fettle")
    if not packed.exists():
        subprocess.run(
            [fettle, "quant", options.model, "--out", packed, "--bits", scheme,
             "--method", "rtn", "--group", str(options.group), "--attention",
             scheme if scheme.startswith("int") else "int4", "--quiet"],
            check=True, stdout=subprocess.DEVNULL)
    if not gguf.exists():
        done = subprocess.run(
            [fettle, "export", packed, "--format", "gguf", "--out", gguf,
             "--quiet"], capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            return packed, None
    return packed, gguf / "model.gguf"


def prompts(options):
    """Token ids: one long prompt, and short ones that differ."""
    draw = random.Random(0)
    vocab = json.loads((options.model / "config.json").read_text())["vocab_size"]
    some = lambda count: [draw.randrange(3, vocab) for _ in range(count)]
    return {"long": some(options.prompt), "warm": some(options.prompt),
            "short": [some(8) for _ in range(options.parallel)],
            "tokens": options.tokens, "threads": options.threads}


def llama(options, gguf, asked):
    environment = dict(os.environ)
    if options.llama_lib:
        environment["LLAMA_CPP_LIB_PATH"] = str(options.llama_lib)
    done = subprocess.run(
        [options.llama_python, pathlib.Path(__file__).parent / "llama_side.py",
         gguf], input=json.dumps(asked), check=True, capture_output=True,
        text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def fettle(options, folder, activations, asked):
    context = max(options.prompt + 2, 8 + options.tokens)
    command = ["--threads", str(options.threads), "--parallel",
               str(options.parallel), "--context", str(context)]
    if activations != "full":
        command += ["--activations", activations]
    with server_client.Server(folder, command) as server:
        def seconds(list_of_prompts, tokens):
            return server.timed(list_of_prompts, tokens)
        result = {}
        seconds([asked["warm"]], 2)
        result["first_token_seconds"] = seconds([asked["long"]], 1)
        for name, some in [("one", asked["short"][:1]),
                           ("together", asked["short"])]:
            first = seconds(some, 1)
            taken = seconds(some, options.tokens) - first
            result[f"{name}_tokens_per_second"] = (
                len(some) * (options.tokens - 1) / taken)
    return {**result, "peak_bytes": server.peak_bytes}


def tell(scheme, side, run):
    print(json.dumps({"scheme": scheme, "side": side, **run}), file=sys.stderr,
          flush=True)
    return run


def compare(options, work):
    asked = prompts(options)
    result = {"threads": options.threads, "rounds": options.rounds,
              "prompt": options.prompt, "parallel": options.parallel}
    for scheme in options.bits:
        packed, gguf = folders(options, scheme, work)
        sides = {f"fettle, activations {kind}": [] for kind in options.activations}
        theirs = []
        for _ in range(options.rounds):
            for kind in options.activations:
                sides[f"fettle, activations {kind}"].append(
                    tell(scheme, kind, fettle(options, packed, kind, asked)))
            if gguf:
                theirs.append(
                    tell(scheme, "llama.cpp", llama(options, gguf, asked)))
        middle = lambda runs, key: statistics.median(run[key] for run in runs)
        found = {"llama.cpp": {key: middle(theirs, key) for key in RATES}
                 } if theirs else {}
        for side, runs in sides.items():
            found[side] = {key: middle(runs, key) for key in RATES}
            if theirs:
                found[side]["ratio"] = {
                    key: statistics.median(
                        ours[key] / other[key]
                        for ours, other in zip(runs, theirs, strict=True))
                    for key in RATES}
        result[scheme] = found
    print(json.dumps(result, indent=2))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--llama-python", required=True)
    parser.add_argument("--llama-lib", type=pathlib.Path)
    parser.add_argument("--bits", nargs="+", default=["int8", "int4", "ternary"])
    parser.add_argument("--activations", nargs="+", default=["full", "int8"])
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=pathlib.Path,
                        help="keeps the folders here, and takes those found")
    options = parser.parse_args()
    if options.work:
        options.work.mkdir(exist_ok=True)
        return compare(options, options.work)
    with tempfile.TemporaryDirectory() as work:
        compare(options, pathlib.Path(work))


if __name__ == "__main__":
    main()
