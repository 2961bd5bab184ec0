# SPDX-License-Identifier: Apache-2.0
"""Measures what trimming costs: drives `fettle analyze`, `trim` and `eval` as a
user would over scores, scopes, widths, shares kept, repairs, calibration domains
and seeds (trim_fidelity_grid.py), and holds each trimmed model against the
untrimmed one on held-out text of every domain.

    python tests/bench/trim_fidelity.py MODEL --name NAME --results FILE
        --calibration DOMAIN=JSONL ... --held DOMAIN=JSONL ...
        [--sections headline scores ...] [--held-tokens 4096] [--workers 1]

Every result is a line of JSON appended to FILE; what FILE has is not run again,
so a run that was broken off goes on. trim_fidelity_report.py makes the document.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import tempfile
import threading
import time

import build_folder
import calibration_ids
import trim_fidelity_grid as grid
import trim_fidelity_plans as plans


class Program:
    """Runs the program; times each run by the wall and by the processor."""

    def __init__(self, threads):
        self.path = os.environ.get("FETTLE_PROGRAM") or build_folder.find("fettle")
        self.threads = threads

    def __call__(self, *arguments, report):
        command = [str(self.path), *map(str, arguments), "--quiet", "--json",
                   str(report), "--threads", str(self.threads)]
        report.unlink(missing_ok=True)
        begin = time.perf_counter()
        # The tables that the program prints are in its report too.
        silent = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        process = os.posix_spawn(
            command[0], command, os.environ, file_actions=[silent])
        _, status, usage = os.wait4(process, 0)
        wall = time.perf_counter() - begin
        if status != 0:
            raise SystemExit(f"failed: {' '.join(command)}")
        return json.loads(report.read_text()), {
            "wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


class Results:
    """The lines of the results file, found by what was measured."""

    def __init__(self, file):
        self.file = file
        self.lock = threading.Lock()
        self.lines = {}
        if file.exists():
            for line in file.read_text().splitlines():
                # The last line of a killed run may be torn.
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self.lines[self.name(entry)] = entry

    @staticmethod
    def name(entry):
        return json.dumps([entry[part] for part in ("kind", "model", "of")],
                          sort_keys=True)

    def find(self, kind, model, of):
        with self.lock:
            return self.lines.get(
                self.name({"kind": kind, "model": model, "of": of}))

    def add(self, entry):
        with self.lock:
            self.lines[self.name(entry)] = entry
            with self.file.open("a") as out:
                out.write(json.dumps(entry) + "\n")


def held_part(file, tokens, tokenizer, out):
    """Whole lines of `file`, drawn by a fixed seed until they make `tokens`."""
    lines = file.read_text().splitlines()
    random.Random(1).shuffle(lines)
    taken, count = [], 0
    for line in lines:
        if count >= tokens:
            break
        taken.append(line)
        count += len(tokenizer.encode(json.loads(line)["text"]).ids)
    out.write_text("\n".join(taken) + "\n")
    return out


def held_files(options, work, prefix):
    """Of each domain of `options`, all of its file or --held-tokens of it."""
    if not options.held_tokens:
        return dict(options.held)
    tokenizer = calibration_ids.tokenizer_of(options.model)
    return {domain: held_part(file, options.held_tokens, tokenizer,
                              work / f"{prefix}_{domain}.jsonl")
            for domain, file in options.held}


class Bench:
    def __init__(self, options):
        self.options = options
        self.model = options.name
        self.fettle = Program(options.threads)
        self.results = Results(options.results)
        self.work = options.work / options.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.calibration = dict(options.calibration)
        self.domains = list(dict(options.held))
        self.held = {"all": dict(options.held), "part": held_files(options, self.work, "held_part")}
        # Analyses and base losses are shared: each is made once.
        self.once = threading.Lock()
        self.scored = {}

    def data_flags(self, calibration):
        files = (self.calibration.values() if calibration == "mixed"
                 else [self.calibration[calibration]])
        return ["--data", *files, "--tokens", self.options.tokens,
                "--seq-len", self.options.seq_len]

    def scores(self, run, runs):
        """The folder of scores that `run` needs."""
        with self.once:
            name = f"{run.calibration}-{run.seed}"
            if name not in self.scored:
                wanted = grid.scores_needed(runs, run.calibration, run.seed)
                self.scored[name] = self.analyze(name, run, wanted)
            return self.scored[name]

    def analyze(self, name, run, wanted):
        folder = self.work / f"scores-{name}"
        if folder.exists():
            had = json.loads((folder / "scores.json").read_text())
            if set(wanted) <= {*had["neuron_scores"], *had["expert_scores"]}:
                return folder
            shutil.rmtree(folder)
        result, seconds = self.fettle(
            "analyze", self.options.model, "--out", folder, "--scores",
            ",".join(wanted), "--seed", run.seed,
            *self.data_flags(run.calibration),
            report=self.work / f"analyze-{name}.json")
        self.results.add({
            "kind": "analyze", "model": self.model,
            "of": {"calibration": run.calibration, "seed": run.seed},
            "scores": wanted, "tokens": result["tokens"],
            "seq_len": self.options.seq_len, "seconds": seconds})
        return folder

    def evaluate(self, folder, held, name, *more):
        files = self.held[held]
        result, seconds = self.fettle(
            "eval", folder, "--data", *files.values(), *more,
            report=self.work / f"eval-{name}.json")
        measured = [{key: value for key, value in entry.items()
                     if key in ("tokens", "nll", "kl", "top1")}
                    for entry in result["files"]]
        return dict(zip(files, measured)), seconds

    def base(self, held):
        """The untrimmed model's losses."""
        with self.once:
            of = {"held": held}
            if self.results.find("base", self.model, of):
                return
            domains, seconds = self.evaluate(
                self.options.model, held, f"base-{held}")
            self.results.add({"kind": "base", "model": self.model, "of": of,
                              "domains": domains, "seconds": seconds})

    def trim(self, run, scores, folder, name):
        """Trims into `folder`; the program's report and seconds."""
        chosen = ["--scores", scores, "--score", run.score, "--scope",
                  run.scope, "--unit", run.unit, "--widths", run.widths,
                  "--keep", run.keep]
        if run.remove_top:
            plan = self.work / f"{name}.plan"
            shutil.rmtree(plan, ignore_errors=True)
            self.fettle("trim", self.options.model, "--out", plan, *chosen,
                        "--plan-only", report=self.work / f"plan-{name}.json")
            plans.remove_top(plan / "trim_plan.json", scores, run.score,
                             run.remove_top)
            chosen = ["--plan", plan / "trim_plan.json"]
        repair = ["--repair", run.repair]
        if run.repair not in ("none", "constant"):
            repair += [*self.data_flags(run.calibration), "--seed", run.seed,
                       "--repair-inputs", run.inputs]
        shutil.rmtree(folder, ignore_errors=True)
        return self.fettle("trim", self.options.model, "--out", folder, *chosen,
                           *repair, report=self.work / f"trim-{name}.json")

    def measure(self, number, run, runs):
        if self.results.find("trim", self.model, run.key()):
            return
        self.base(run.held)
        scores = self.scores(run, runs)
        folder = self.work / f"trimmed-{number}"
        trimmed, trim_seconds = self.trim(run, scores, folder, number)
        domains, eval_seconds = self.evaluate(
            folder, run.held, number, "--against", self.options.model)
        shutil.rmtree(folder)
        self.results.add({
            "kind": "trim", "model": self.model, "of": run.key(),
            "domains": domains, "before": trimmed["before"],
            "after": trimmed["after"],
            "seconds": {"trim": trim_seconds, "eval": eval_seconds}})
        print(f"{number + 1} of {len(runs)}: {run}", flush=True)

    def run(self):
        runs = [run for run in grid.runs_of(self.options.sections, self.domains)
                if run.score in self.options.scores]
        with concurrent.futures.ThreadPoolExecutor(
                self.options.workers) as pool:
            for done in [pool.submit(self.measure, number, run, runs)
                         for number, run in enumerate(runs)]:
                done.result()


def named_file(text):
    name, found, path = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"expected DOMAIN=FILE, found {text}")
    return name, pathlib.Path(path)


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--calibration", type=named_file, nargs="+",
                        required=True)
    parser.add_argument("--held", type=named_file, nargs="+", required=True)
    parser.add_argument("--sections", nargs="+", choices=grid.SECTIONS,
                        default=list(grid.SECTIONS))
    parser.add_argument("--scores", nargs="+",
                        default=grid.NEURON_SCORES + grid.EXPERT_SCORES)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--held-tokens", type=int, default=4096,
                        help="a domain's, in the grid; the headline has all")
    parser.add_argument("--work", type=pathlib.Path,
                        default=pathlib.Path(
                            tempfile.gettempdir(), "trim_fidelity"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    Bench(options().parse_args()).run()
