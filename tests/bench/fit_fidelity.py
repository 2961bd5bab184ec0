# SPDX-License-Identifier: Apache-2.0
"""Holds what `fettle fit` predicts against what is measured, and its plans
against a plain grid: kept in {25, 50, 75, 100 %} by schemes.

    python tests/bench/fit_fidelity.py MODEL --name NAME --results FILE
        --calibration DOMAIN=JSONL ... --held DOMAIN=JSONL ...
        [--tokens 131072] [--held-tokens 0] [--budgets 0.13 0.18 ...]

Every measured model is a line of JSON appended to FILE; what FILE has is not
measured again. The last line, of kind "summary", has the figures: median error
and rank correlation of the predictions of the grid, and for each budget the
measured KL of the plan as a share of that of the best grid point within it; the
plan gets no byte more than that point takes. Held-out text is only measured on:
fit calibrates itself on a part of the calibration text that it does not use.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import tempfile

import trim_fidelity

SEQ_LEN = 512
KEEPS = (1.0, 0.75, 0.5, 0.25)
SCHEMES = ("keep", "int8", "int4", "int3", "int2", "ternary")
BUDGETS = (0.13, 0.16, 0.2, 0.27, 0.36, 0.5)


def ranks(values):
    order = sorted(range(len(values)), key=lambda i: values[i])
    result = [0] * len(values)
    for rank, i in enumerate(order):
        result[i] = rank
    return result


def rank_correlation(a, b):
    return statistics.correlation(ranks(a), ranks(b)) if len(a) > 2 else None


class Bench:
    def __init__(self, options):
        self.options = options
        self.model = options.name
        self.fettle = trim_fidelity.Program(options.threads)
        self.results = trim_fidelity.Results(options.results)
        self.work = options.work / options.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.data = ["--data", *[file for _, file in options.calibration],
                     "--tokens", options.tokens, "--seq-len", SEQ_LEN]
        self.held = trim_fidelity.held_files(options, self.work, "held")

    def stage(self, name, *arguments):
        """Runs a stage into a folder of that name, once."""
        out = self.work / name
        report = self.work / f"{name}.json"
        if out.exists() and report.exists():
            return out, json.loads(report.read_text())
        shutil.rmtree(out, ignore_errors=True)
        made, times = self.fettle(*arguments, "--out", out, report=report)
        made["times"] = times
        report.write_text(json.dumps(made))
        return out, made

    def kl(self, folder):
        """The KL from the model as it is, by domain."""
        report, _ = self.fettle(
            "eval", folder, "--data", *self.held.values(), "--against",
            self.options.model, "--seq-len", SEQ_LEN,
            report=self.work / "eval.json")
        return {domain: entry["kl"] for domain, entry
                in zip(self.held, report["files"], strict=True)}

    def measure(self, of, folder):
        """Adds the line of a finished model."""
        kl = self.kl(folder)
        entry = {"kind": "measured", "model": self.model, "of": of, "kl": kl,
                 "mean": statistics.fmean(kl.values()),
                 "bytes": self.bytes_of(folder)}
        self.results.add(entry)
        print(json.dumps(entry), flush=True)
        return entry

    def bytes_of(self, folder):
        report, _ = self.fettle("inspect", folder,
                                report=self.work / "inspect.json")
        return report["bytes"]

    def cut_and_rounded(self, of, cut, rounding):
        """Trims by the arguments `cut` and quantizes by `rounding`, if any."""
        found = self.results.find("measured", self.model, of)
        if found:
            return found
        model = self.options.model
        made = []
        if cut:
            model, _ = self.stage("cut-" + cut[0], "trim", model, *cut[1],
                                  *self.data)
            if cut[0].startswith("plan"):
                made.append(model)
        if rounding:
            name = "-".join(["rounded", *map(str, of.values())])
            model, _ = self.stage(name, "quant", model, *rounding,
                                  *self.data)
            made.append(model)
        entry = self.measure(of, model)
        for folder in made:
            shutil.rmtree(folder)
        return entry

    def grid_point(self, keep, scheme):
        cut = None
        of = {"keep": keep, "scheme": scheme}
        found = self.results.find("measured", self.model, of)
        if found:
            return found
        if keep < 1:
            cut = (str(keep), ["--scores", self.scores, "--keep", keep])
        rounding = None if scheme == "keep" else ["--bits", scheme]
        return self.cut_and_rounded(of, cut, rounding)

    def chosen(self, share, entry, plan):
        of = {"plan": share, "budget": entry["bytes"]}
        return self.cut_and_rounded(
            of, (f"plan-{share}", ["--plan", plan / "trim_plan.json"]),
            ["--plan", plan / "quant_plan.json"])

    def run(self):
        first = self.predict(1 << 50)
        self.seconds = first["times"]
        self.calibration = first["calibration"]
        self.scores = self.work / "fit" / "scores"
        grid = [self.grid_point(keep, scheme) for keep in KEEPS
                for scheme in self.options.schemes
                if (keep, scheme) != (1.0, "keep")]
        pairs = []
        for entry in grid:
            pairs += [(plain["nats"], entry["mean"], plain["name"])
                      for plain in first["plain"]
                      if all(plain[key] == value
                             for key, value in entry["of"].items())]
        whole = self.bytes_of(self.options.model)
        rows = []
        for share in self.options.budgets:
            within = [e for e in grid if e["bytes"] <= share * whole]
            if not within:
                continue
            best = min(within, key=lambda e: e["mean"])
            made = self.predict(best["bytes"])["chosen"]
            got = self.chosen(share, best, self.work / "fit")
            rows.append({"share": share, "kept": made["kept"], "grid": best["of"],
                         "grid_bytes": best["bytes"], "grid_kl": best["mean"],
                         "bytes": got["bytes"], "kl": got["mean"],
                         "predicted": made["nats"],
                         "ratio": got["mean"] / best["mean"]})
        self.summary(pairs, rows)

    def summary(self, pairs, rows):
        inside = [p for p in pairs if 0.002 <= p[1] <= 0.2]
        errors = [abs(p[0] / p[1] - 1) for p in inside]
        entry = {"kind": "summary", "model": self.model, "of": {},
                 "points": len(inside),
                 "median_error": statistics.median(errors) if errors else None,
                 "rank_correlation": rank_correlation(
                     [p[0] for p in inside], [p[1] for p in inside]),
                 "pairs": pairs, "budgets": rows, "calibration":
                 self.calibration, "seconds": self.seconds}
        self.results.add(entry)
        print(json.dumps(entry, indent=1))

    def predict(self, budget):
        """What `fit` plans for a budget of bytes; measured once."""
        report, times = self.fettle(
            "fit", self.options.model, "--budget", f"{budget}B",
            "--plan-only", "--out", self.work / "fit", *self.data,
            report=self.work / "fit.json")
        report["times"] = times
        return report


def named_file(text):
    name, _, file = text.partition("=")
    return name, pathlib.Path(file)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--calibration", nargs="+", type=named_file,
                        required=True)
    parser.add_argument("--held", nargs="+", type=named_file, required=True)
    parser.add_argument("--tokens", type=int, default=131072)
    parser.add_argument("--held-tokens", type=int, default=0)
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS)
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES,
                        default=SCHEMES)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(
        tempfile.gettempdir()) / "fit_fidelity")
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
