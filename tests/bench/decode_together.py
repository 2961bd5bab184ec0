# SPDX-License-Identifier: Apache-2.0
"""Tokens a second of `fettle eval --generate` with one sequence at a time and
with several, by processes in turns. Prints JSON.

    python tests/bench/decode_together.py MODEL [--parallel 1 8] [--questions 16]
        [--tokens 150] [--rounds 3] [--threads 2]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import build_folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rates = {parallel: [] for parallel in options.parallel}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for i in range(options.questions):
            row = {"prompt": f"The {i} experts that matter are", "answer": ""}
            file.write(json.dumps(row) + "\n")
        file.flush()
        for _ in range(options.rounds):
            for parallel, found in rates.items():
                done = subprocess.run(
                    [build_folder.find("fettle"), "eval", options.model,
                     "--generate", file.name, "--parallel", str(parallel),
                     "--max-new-tokens", str(options.tokens), "--threads",
                     str(options.threads), "--quiet", "--json", "-"],
                    check=True, capture_output=True, text=True)
                result = json.loads(done.stdout)["generate"]
                found.append(result["tokens_per_second"])
    print(json.dumps(
        {parallel: {"tokens_per_second": statistics.median(found), "rounds": found}
         for parallel, found in rates.items()}, indent=2))


if __name__ == "__main__":
    main()
