# SPDX-License-Identifier: Apache-2.0
"""Chooses the learning rates that methods of `fettle tune` have by default:
cuts a model to a quarter, tunes it by each method at each rate over some seeds,
and shows the share of the loss that each gives back.

    python tests/bench/learning_rates.py FETTLE MODEL --name NAME
        --train JSONL ... --held JSONL ... --results FILE [--seeds 3]
        [--rates 1e-4 ...] [--methods usaf ...]
    python tests/bench/learning_rates.py --table FILE

The first seed tries all rates, the others the two that were best with it and
5e-4, which most methods have by default.
Every run is a line of JSON appended to FILE; what FILE has is not run again.
The share is (loss of the cut model - loss of the tuned one) / (loss of the cut
model - loss of the whole one), by means over the held-out files: 0 is nothing,
1 all.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess

RATES = [1e-4, 3e-4, 5e-4, 1e-3, 3e-3]
ALWAYS = 5e-4
METHODS = {
    "usaf": ["--method", "usaf", "--router", "frozen", "--lr", "RATE",
             "--score-sequences", 8],
    "smt": ["--method", "smt", "--lr", "RATE", "--score-sequences", 8],
    "esft": ["--method", "esft", "--lr", "RATE", "--score-sequences", 8],
    "full": ["--method", "full", "--states", "ram", "--lr", "RATE"],
    "lora": ["--method", "lora", "--lr", "RATE"],
    "router": ["--method", "router", "--router-lr", "RATE"],
    # The routers' rate beside neurons that have their own.
    "usaf and router": ["--method", "usaf", "--lr", "5e-4", "--router-lr",
                        "RATE", "--score-sequences", 8],
}


def run(options, *arguments, report=None):
    command = [options.fettle, *arguments, "--quiet", "--threads",
               options.threads]
    if report:
        command += ["--json", report]
    subprocess.run([str(part) for part in command], check=True,
                   stdout=subprocess.DEVNULL)
    return json.loads(report.read_text()) if report else None


def mean_loss(scores):
    return statistics.fmean(score["nll"] for score in scores.values())


def held_files(options, work):
    """The first lines of each file: loss is compared, not told."""
    files = []
    for file in options.held:
        part = work / file.name
        lines = file.read_text().splitlines()[:options.held_lines]
        part.write_text("\n".join(lines) + "\n")
        files.append(part)
    return files


def prepare(options, work):
    trimmed = work / "trimmed"
    if not trimmed.exists():
        common = ["--data", *options.train, "--tokens", 32768, "--seq-len", 256]
        run(options, "analyze", options.model, *common, "--out",
            work / "scores")
        run(options, "trim", options.model, "--scores", work / "scores",
            "--keep", 0.25, *common, "--out", trimmed)
    return trimmed


def rates_for(seed, shares):
    """`shares` of the first seed, by rate."""
    if seed == 1:
        return sorted(shares)
    return sorted({*sorted(shares, key=shares.get)[-2:], ALWAYS})


def measure(options):
    work = options.work / options.name
    work.mkdir(parents=True, exist_ok=True)
    held = held_files(options, work)
    trimmed = prepare(options, work)
    losses = {}
    for what, model in (("whole", options.model), ("cut", trimmed)):
        report = run(options, "eval", model, "--data", *held, "--seq-len", 256,
                     report=work / "eval.json")
        losses[what] = statistics.fmean(f["nll"] for f in report["files"]
                                        if f["file"] != "all")
    options.results.touch()
    done = [json.loads(line) for line
            in options.results.read_text().splitlines()]
    shares = {(d["method"], d["rate"], d["seed"]): d["share"] for d in done
              if d["model"] == options.name}
    for method in options.methods:
        arguments = METHODS[method]
        for seed in range(1, options.seeds + 1):
            first = {rate: shares.get((method, rate, 1))
                     for rate in options.rates}
            for rate in rates_for(seed, first):
                key = (method, rate, seed)
                if key in shares:
                    continue
                out = work / "tuned"
                shutil.rmtree(out, ignore_errors=True)
                shutil.rmtree(f"{out}.partial", ignore_errors=True)
                of_method = [rate if a == "RATE" else a for a in arguments]
                report = run(
                    options, "tune", trimmed, "--data", *options.train,
                    "--eval-data", *held, "--out", out, "--steps",
                    options.steps, "--tokens-per-step", 1024, "--seq-len", 256,
                    "--warmup-steps", 2, "--router-warmup", 2,
                    "--save-every", 0, "--eval-every", 0, "--keep-best", "no",
                    "--seed", seed, *of_method, report=work / "tune.json")
                tuned = mean_loss(report["held_out_after"])
                share = ((losses["cut"] - tuned)
                         / (losses["cut"] - losses["whole"]))
                shares[key] = share
                line = {"model": options.name, "method": method, "rate": rate,
                        "seed": seed, "steps": options.steps, "tuned": tuned,
                        "share": share, **losses}
                with options.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(options.name, *key, f"{share:.3f}", flush=True)


def table(results):
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    rates = sorted({line["rate"] for line in lines})
    models = list(dict.fromkeys(line["model"] for line in lines))
    print("| method | model | " + " | ".join(f"{r:g}" for r in rates) + " |")
    print("|---" * (2 + len(rates)) + "|")
    for method in METHODS:
        for model in models:
            cells = []
            for rate in rates:
                shares = [100 * line["share"] for line in lines
                          if (line["model"], line["method"], line["rate"])
                          == (model, method, rate)]
                cell = f"{statistics.fmean(shares):.1f}" if shares else ""
                if len(shares) > 1:
                    cell += f" ± {statistics.pstdev(shares):.1f}"
                cells.append(cell)
            print(f"| {method} | {model} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    path = pathlib.Path
    parser.add_argument("fettle", type=path, nargs="?")
    parser.add_argument("model", type=path, nargs="?")
    parser.add_argument("--name")
    parser.add_argument("--train", type=path, nargs="+")
    parser.add_argument("--held", type=path, nargs="+")
    parser.add_argument("--results", type=path)
    parser.add_argument("--work", type=path, default=path("build/rates"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--methods", nargs="+", choices=METHODS,
                        default=list(METHODS))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--held-lines", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", type=path)
    options = parser.parse_args()
    if options.table:
        table(options.table)
    else:
        measure(options)


if __name__ == "__main__":
    main()
