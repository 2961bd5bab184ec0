# SPDX-License-Identifier: Apache-2.0
"""What `--activations int8` costs: held-out text's loss with full and with
rounded activations, and the KL of the next token's distributions (over the 20
likeliest of the full ones, all others as one). Prints JSON.

    python tests/bench/activations_kl.py MODEL --data HELD.jsonl ...
        [--texts 24] [--characters 1200]
"""

import argparse
import json
import math
import pathlib

import server_client


def texts_of(options):
    found = []
    for file in options.data:
        for line in file.read_text().splitlines()[:options.texts]:
            row = json.loads(line)
            found.append(" ".join(
                str(value) for value in row.values())[:options.characters])
    return found


def places(server, text):
    """Of each token but the first: its log-probability, and the likeliest."""
    choice = server.post("/v1/completions", {
        "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 20,
        "temperature": 0})["choices"][0]["logprobs"]
    return list(zip(choice["token_logprobs"][1:], choice["top_logprobs"][1:]))


def kl(full, rounded):
    """Over what both name; a token that only one names is among the others."""
    common = full.keys() & rounded.keys()
    rest = [max(1 - sum(math.exp(side[t]) for t in common), 1e-12)
            for side in (full, rounded)]
    return sum(math.exp(full[t]) * (full[t] - rounded[t]) for t in common) + (
        rest[0] * math.log(rest[0] / rest[1]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--texts", type=int, default=24, help="of each file")
    parser.add_argument("--characters", type=int, default=1200)
    options = parser.parse_args()
    sides = {}
    for kind in ("full", "int8"):
        arguments = ["--activations", kind, "--context", "1024"]
        with server_client.Server(options.model, arguments) as server:
            sides[kind] = [place for text in texts_of(options)
                           for place in places(server, text)]
    count = len(sides["full"])
    result = {"tokens": count}
    for kind, found in sides.items():
        result[f"loss_{kind}"] = -sum(chance for chance, _ in found) / count
    result["kl"] = sum(
        kl(full, rounded) for (_, full), (_, rounded) in zip(
            sides["full"], sides["int8"], strict=True)) / count
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
