# SPDX-License-Identifier: Apache-2.0
"""Measures what tuning gives back to a trimmed model, method by method: drives
`fettle analyze`, `trim` and `tune` as a user would, all methods with the same
data, tokens and number of steps, about as many trainable weights each, and the
best of some learning rates.

    python tests/bench/recovery.py MODEL --name NAME --results FILE
        --train DOMAIN=JSONL ... --held DOMAIN=JSONL ...
        [--keeps 0.25 0.5] [--bits bf16 int4 ...] [--methods usaf lora ...]
        [--seeds 3]

With --bits the trimmed model is quantized, and tuned beside its frozen codes.
The learning rate is chosen by the first seed, the other seeds follow with it.
Every result is a line of JSON appended to FILE; what FILE has is not run again,
so a run that was broken off goes on. recovery_report.py makes the document.
"""

import argparse
import itertools
import json
import pathlib
import shutil
import statistics
import tempfile

import trim_fidelity

TEACHER = "the untrimmed model"
# The rank gives lora as many weights as a share of 0.05 gives usaf.
METHODS = {
    "router": ["--method", "router", "--router-lr", "RATE"],
    "router_kd": ["--method", "router_kd", "--router-lr", "RATE",
                  "--teacher", TEACHER],
    "usaf": ["--method", "usaf", "--frac", 0.05, "--router-lr", "RATE/10"],
    "usaf, densemixer": ["--method", "usaf", "--frac", 0.05, "--router",
                         "densemixer", "--router-lr", "RATE/10"],
    "usaf, teacher": ["--method", "usaf", "--frac", 0.05, "--router-lr",
                      "RATE/10", "--teacher", TEACHER, "--kd-weight", 0.5],
    "usaf + condenser": ["--method", "usaf+condenser", "--frac", 0.05,
                         "--router-lr", "RATE/10", "--condensers", 1],
    "smt": ["--method", "smt", "--frac", 0.05],
    "esft": ["--method", "esft", "--esft-share", 0.08],
    "lora, experts": ["--method", "lora", "--lora-targets", "experts",
                      "--rank", "RANK"],
    "lora, all": ["--method", "lora", "--rank", "RANK"],
    "usaf + lora, attention": ["--method", "usaf+lora", "--frac", 0.05,
                               "--router-lr", "RATE/10", "--lora-targets",
                               "attention", "--rank", 8],
    "usaf + lora, attention, teacher": [
        "--method", "usaf+lora", "--frac", 0.05, "--router-lr", "RATE/10",
        "--lora-targets", "attention", "--rank", 8, "--teacher", TEACHER,
        "--kd-weight", 0.5],
    # As many weights as usaf has with pairs beside the attention.
    "usaf, wider": ["--method", "usaf", "--frac", 0.068, "--router-lr",
                    "RATE/10"],
    "full": ["--method", "full", "--states", "ram", "--match", "layers"],
}


class Bench:
    def __init__(self, options):
        self.options = options
        self.fettle = trim_fidelity.Program(options.threads)
        self.results = trim_fidelity.Results(options.results)
        self.work = options.work / options.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.train = [file for _, file in options.train]
        self.held = list(
            trim_fidelity.held_files(options, self.work, "held").values())

    def trimmed(self, keep):
        out = self.work / f"trimmed-{keep}"
        if out.exists():
            return out
        scores = self.work / "scores"
        if not scores.exists():
            self.fettle(
                "analyze", self.options.model, "--data", *self.train,
                "--tokens", 131072, "--seq-len", 512, "--out", scores,
                report=self.work / "analyze.json")
        self.fettle(
            "trim", self.options.model, "--scores", scores, "--keep", keep,
            "--data", *self.train, "--tokens", 131072, "--seq-len", 512,
            "--out", out, report=self.work / "trim.json")
        return out

    def start(self, keep, bits):
        """The model that is tuned."""
        trimmed = self.trimmed(keep)
        if bits == "bf16":
            return trimmed
        out = self.work / f"trimmed-{keep}-{bits}"
        if not out.exists():
            self.fettle(
                "quant", trimmed, "--bits", bits, "--data", *self.train,
                "--tokens", 131072, "--seq-len", 512, "--out", out,
                report=self.work / "quant.json")
        return out

    def base(self):
        """Loss of the untrimmed model, by file."""
        report, _ = self.fettle(
            "eval", self.options.model, "--data", *self.held, "--seq-len",
            self.options.seq_len, report=self.work / "base.json")
        return {pathlib.Path(f["file"]).stem: f["nll"] for f in report["files"]}

    def arguments(self, method, keep, rate):
        rank = max(1, round(8 * keep))
        values = {"RATE": rate, "RATE/10": rate / 10, "RANK": rank,
                  TEACHER: self.options.model}
        return [values.get(a, a) if isinstance(a, str) else a
                for a in METHODS[method]]

    def measure(self, start, method, rate, seed):
        keep, bits = start
        of = {"keep": keep, "bits": bits, "method": method, "rate": rate, "seed": seed,
              "steps": self.options.steps,
              "tokens_per_step": self.options.tokens_per_step}
        found = self.results.find("tune", self.options.name, of)
        if found:
            return found
        out = self.work / "tuned"
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(f"{out}.partial", ignore_errors=True)
        report, seconds = self.fettle(
            "tune", self.start(keep, bits), "--data", *self.train,
            "--eval-data", *self.held, "--out", out,
            "--steps", self.options.steps,
            "--tokens-per-step", self.options.tokens_per_step,
            "--seq-len", self.options.seq_len, "--lr", rate,
            "--warmup-steps", 4, "--router-warmup", 4, "--save-every", 0,
            "--eval-every", self.options.steps // 4, "--seed", seed,
            *self.arguments(method, keep, rate),
            report=self.work / "tune.json")
        lines = [json.loads(line) for line
                 in (out / "metrics.jsonl").read_text().splitlines()]
        entry = {
            "kind": "tune", "model": self.options.name, "of": of,
            "held": {line["step"]: {pathlib.Path(name).stem: score["nll"]
                                    for name, score in line["eval"].items()}
                     for line in lines if "eval" in line},
            "trainable_weights": report["trainable_weights"],
            "peak_ram_bytes": report["peak_ram_bytes"],
            "seconds": seconds}
        self.results.add(entry)
        print(method, keep, bits, rate, seed, loss_of(entry), flush=True)
        return entry

    def run(self):
        base = {"kind": "base", "model": self.options.name,
                "of": {"held_tokens": self.options.held_tokens},
                "held": self.base()}
        if not self.results.find("base", self.options.name, base["of"]):
            self.results.add(base)
        for start in itertools.product(self.options.keeps, self.options.bits):
            for method in self.options.methods:
                first = [self.measure(start, method, rate, 1)
                         for rate in self.options.rates]
                best = min(first, key=loss_of)["of"]["rate"]
                for seed in range(2, self.options.seeds + 1):
                    self.measure(start, method, best, seed)


def loss_of(entry):
    """Mean loss over the domains after the last step."""
    return statistics.fmean(entry["held"][max(entry["held"], key=int)].values())


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    named = trim_fidelity.named_file
    parser.add_argument("--train", type=named, nargs="+", required=True)
    parser.add_argument("--held", type=named, nargs="+", required=True)
    parser.add_argument("--keeps", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--bits", nargs="+", default=["bf16"])
    parser.add_argument("--methods", nargs="+", choices=METHODS,
                        default=list(METHODS))
    parser.add_argument("--rates", type=float, nargs="+",
                        default=[1e-4, 5e-4])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--tokens-per-step", type=int, default=2048)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--held-tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=pathlib.Path,
                        default=pathlib.Path(tempfile.gettempdir(), "recovery"))
    return parser


if __name__ == "__main__":
    Bench(options().parse_args()).run()
