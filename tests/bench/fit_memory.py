# SPDX-License-Identifier: Apache-2.0
"""The memory that `fettle fit` promises beside the peak that `fettle generate`
has, at a context that a prompt fills: of a model as it is, and of its half in
two schemes, promised before it is trimmed and quantized. Prints a table.

    python tests/bench/fit_memory.py MODEL --data CALIB.jsonl
        [--context 1000] [--keep 0.5] [--bits int4 ternary]

make_random_model.py makes a model of any size (with --tokenizer).
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import build_folder

WORDS = "Compute 17 + 25 and 3 * 9, then sort 8 3 5 1. "
NEW = 32


def run(*arguments):
    done = subprocess.run(
        [build_folder.find("fettle"), *map(str, arguments)],
        capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done


def promised(options):
    done = run("fit", options.model, "--ram", "1TiB", "--context",
               options.context, "--json", "-", "--quiet")
    return {(row["keep"], row["scheme"]): row
            for row in json.loads(done.stdout)["rows"]}


def tokens_of(folder, text):
    """How many tokens a prompt has, by what a refusal says of one more than
    the model takes."""
    done = subprocess.run(
        [build_folder.find("fettle"), "generate", str(folder), "--prompt", text,
         "--max-new-tokens", str(10**9)], capture_output=True, text=True)
    return int(done.stderr.split("--max-new-tokens: ")[1].split()[0])


def prompt_of(options):
    each = tokens_of(options.model, WORDS * 10) - tokens_of(
        options.model, WORDS * 9)
    return WORDS * ((options.context - NEW) // each)


def measured(options, folder, row, prompt):
    done = run("generate", folder, "--prompt", prompt, "--max-new-tokens", NEW,
               "--ram", f"{row['total_bytes']}B", "--json", "-")
    return json.loads(done.stdout)["peak_ram_bytes"]


def folders(options, work):
    yield 1.0, "stored", options.model
    run("analyze", options.model, "--data", options.data, "--tokens", 4096,
        "--out", work / "scores", "--quiet")
    run("trim", options.model, "--scores", work / "scores", "--keep",
        options.keep, "--repair", "none", "--out", work / "trimmed", "--quiet")
    for bits in options.bits:
        run("quant", work / "trimmed", "--bits", bits, "--zeros", "no", "--out",
            work / bits, "--quiet")
        yield options.keep, bits, work / bits


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--context", type=int, default=1000)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--bits", nargs="+", default=["int4", "ternary"])
    options = parser.parse_args()
    rows = promised(options)
    prompt = prompt_of(options)
    print("| model | promised | measured | share |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for keep, bits, folder in folders(options, pathlib.Path(work)):
            row = rows[keep, bits]
            peak = measured(options, folder, row, prompt)
            total = row["total_bytes"]
            print(f"| {100 * keep:g} % as {bits} | {total / 2**20:.0f} MiB | "
                  f"{peak / 2**20:.0f} MiB | {peak / total:.2f} |", flush=True)


if __name__ == "__main__":
    main()
