# SPDX-License-Identifier: Apache-2.0
"""Measures what few bits cost: drives `fettle quant` and `eval` as a user would
over schemes, methods, calibrations and grids (quant_fidelity_grid.py), on the
whole model and on trimmed ones, and holds each result against the model it was
made from on held-out text of every domain.

    python tests/bench/quant_fidelity.py MODEL --name NAME --results FILE
        --calibration DOMAIN=JSONL ... --held DOMAIN=JSONL ...
        [--sections headline trimmed ...] [--held-tokens 0]

Every result is a line of JSON appended to FILE; what FILE has is not run again,
so a run that was broken off goes on. quant_fidelity_report.py makes the document.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import calibration_ids
import quant_fidelity_grid as grid
import trim_fidelity

SEQ_LEN = 512
EXPERT_ROLES = ("expert_gate", "expert_up", "expert_down")


def experts_of(report):
    """Weights and bytes of the experts, by a quant report."""
    roles = [layer["roles"][role] for layer in report["layers"]
             for role in EXPERT_ROLES if role in layer["roles"]]
    return {"weights": sum(role["weights"] for role in roles),
            "bytes": sum(role["bytes"] for role in roles),
            "scarce": sum(role["scarce"] for role in roles),
            "unseen": sum(role["unseen"] for role in roles),
            "matrices": sum(role["matrices"] for role in roles)}


class Bench:
    def __init__(self, options):
        self.options = options
        self.model = options.name
        self.fettle = trim_fidelity.Program(options.threads)
        self.results = trim_fidelity.Results(options.results)
        self.work = options.work / options.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.files = [file for _, file in options.calibration]
        self.held = trim_fidelity.held_files(options, self.work, "held")

    def data_flags(self, tokens):
        return ["--data", *self.files, "--tokens", tokens,
                "--seq-len", SEQ_LEN]

    def trimmed(self, keep):
        """The model that is quantized."""
        if keep == 1:
            return self.options.model
        out = self.work / f"trimmed-{keep}"
        scores = self.work / "scores"
        data = self.data_flags(grid.Run.tokens)
        if not scores.exists():
            self.fettle("analyze", self.options.model, "--out", scores, *data,
                        report=self.work / "analyze.json")
        if not out.exists():
            self.fettle("trim", self.options.model, "--scores", scores,
                        "--keep", keep, "--out", out, *data,
                        report=self.work / "trim.json")
        return out

    def evaluate(self, folder):
        """By domain; against the model itself there is nothing to measure."""
        against = ([] if folder == self.options.model
                   else ["--against", self.options.model])
        result, seconds = self.fettle(
            "eval", folder, "--data", *self.held.values(), *against,
            report=self.work / "eval.json")
        measured = [{key: value for key, value in entry.items()
                     if key in ("tokens", "nll", "kl", "top1")}
                    for entry in result["files"]]
        return dict(zip(self.held, measured)), seconds

    def sizes(self, folder):
        """What a report of quant says of a model that stays as it is."""
        out = self.work / "kept"
        shutil.rmtree(out, ignore_errors=True)
        schemes = [f for part in ("bits", "attention", "shared", "dense")
                   for f in (f"--{part}", "keep")]
        report, _ = self.fettle("quant", folder, "--out", out, *schemes,
                                report=self.work / "kept.json")
        shutil.rmtree(out)
        return {"experts": experts_of(report), "bytes": report["after"]["bytes"]}

    def quantized(self, run):
        """By fettle: the folder, and what is known of it."""
        out = self.work / "quantized"
        shutil.rmtree(out, ignore_errors=True)
        data = self.data_flags(run.tokens) if run.tokens else []
        report, seconds = self.fettle(
            "quant", self.trimmed(run.keep), "--out", out, *run.flags(), *data,
            report=self.work / "quant.json")
        return out, {"experts": experts_of(report), "seconds": seconds,
                     "bytes": report["after"]["bytes"]}

    def by_qmoe(self, run):
        """By QMoE's recipe; its bytes are those of its own format."""
        ids = self.work / "ids.jsonl"
        calibration_ids.write(
            self.options.model, self.files, run.tokens, SEQ_LEN, ids)
        out = self.work / "quantized"
        shutil.rmtree(out, ignore_errors=True)
        begin = time.perf_counter()
        report = json.loads(subprocess.check_output(
            [sys.executable, pathlib.Path(__file__).with_name(
                "quantize_in_torch.py"), self.options.model, ids, out,
             "--recipe", "qmoe", "--threads", str(self.options.threads)]))
        wall = time.perf_counter() - begin
        plain = self.sizes(self.options.model)
        experts = {**plain["experts"], "bytes": report["bits"] // 8}
        return out, {
            "experts": experts, "seconds": {"wall": wall, "cpu": report["cpu"]},
            "bytes": plain["bytes"] - plain["experts"]["bytes"]
            + experts["bytes"], "trits": report["trits"]}

    def measure(self, run):
        if self.results.find("quant", self.model, run.key()):
            return
        if run.bits == "bf16":
            folder = self.trimmed(run.keep)
            known = {**self.sizes(folder), "seconds": {"wall": 0, "cpu": 0}}
        elif run == grid.QMOE:
            folder, known = self.by_qmoe(run)
        else:
            folder, known = self.quantized(run)
        domains, seconds = self.evaluate(folder)
        self.results.add({"kind": "quant", "model": self.model,
                          "of": run.key(), "domains": domains,
                          "eval_seconds": seconds, **known})

    def run(self):
        runs = grid.runs_of(self.options.sections)
        for number, run in enumerate(runs):
            print(f"{number + 1} of {len(runs)}: {run}", flush=True)
            self.measure(run)


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    named = trim_fidelity.named_file
    parser.add_argument("--calibration", type=named, nargs="+", required=True)
    parser.add_argument("--held", type=named, nargs="+", required=True)
    parser.add_argument("--sections", nargs="+", choices=grid.SECTIONS,
                        default=list(grid.SECTIONS))
    parser.add_argument("--held-tokens", type=int, default=0,
                        help="a domain's; 0: all")
    parser.add_argument("--work", type=pathlib.Path,
                        default=pathlib.Path(
                            tempfile.gettempdir(), "quant_fidelity"))
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    Bench(options().parse_args()).run()
