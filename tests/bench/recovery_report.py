# SPDX-License-Identifier: Apache-2.0
"""Fills the tables of docs/recovery.md and draws its chart from what recovery.py
measured.

    python tests/bench/recovery_report.py RESULTS --document docs/recovery.md

The document holds `<!-- table KEEP BITS STEPS -->` .. `<!-- end -->` for each
share kept, base and length; what stands between is replaced.
"""

import argparse
import json
import pathlib
import statistics

import document_blocks
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

matplotlib.rcParams.update({
    "svg.hashsalt": "fettle", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False,
    "figure.constrained_layout.use": True})


def mean(losses):
    return statistics.fmean(losses.values())


class Study:
    def __init__(self, lines):
        self.base = next(line["held"] for line in lines if line["kind"] == "base")
        self.runs = [line for line in lines if line["kind"] == "tune"]

    def starts(self):
        """Share kept and bits of what was tuned, and for how many steps."""
        return list(dict.fromkeys(self.start(run) for run in self.runs))

    @staticmethod
    def start(run):
        return run["of"]["keep"], run["of"]["bits"], run["of"]["steps"]

    def methods(self, start):
        """By method the runs of its better rate, first seed first."""
        found = {}
        for run in self.runs:
            if self.start(run) == start:
                found.setdefault(run["of"]["method"], []).append(run)
        for method, runs in found.items():
            best = min((run for run in runs if run["of"]["seed"] == 1),
                       key=lambda run: self.excess(run, self.last(run)))
            found[method] = [run for run in runs
                             if run["of"]["rate"] == best["of"]["rate"]]
        return found

    @staticmethod
    def last(run):
        return max(run["held"], key=int)

    def excess(self, run, step):
        """Of the mean loss over the untrimmed model's, in nats."""
        return mean(run["held"][step]) - mean(self.base)


def number(values, digits=4):
    middle = f"{statistics.fmean(values):+.{digits}f}"
    if len(values) < 2:
        return middle
    return f"{middle} ± {statistics.stdev(values):.{digits}f}"


def table(study, of):
    domains = list(study.base)
    names = [domain.removeprefix("held_") for domain in domains]
    methods = study.methods(of)
    start = next(iter(methods.values()))[0]
    rows = [["not tuned", "", "", *(
                 f"{start['held']['0'][d] - study.base[d]:+.4f}"
                 for d in domains),
             f"{study.excess(start, '0'):+.4f}", "", ""]]
    order = sorted(methods.items(), key=lambda item: statistics.fmean(
        study.excess(run, study.last(run)) for run in item[1]))
    for method, runs in order:
        cells = [f"{statistics.fmean(run['held'][study.last(run)][d] - study.base[d] for run in runs):+.4f}"
                 for d in domains]
        every = [study.excess(run, study.last(run)) for run in runs]
        rows.append([
            method, f"{runs[0]['of']['rate']:g}",
            f"{runs[0]['trainable_weights']:,}", *cells, number(every),
            f"{statistics.median(run['seconds']['cpu'] for run in runs):.0f}",
            f"{max(run['peak_ram_bytes'] for run in runs) / 2**20:.0f} MiB"])
    return document_blocks.table(
        ["method", "rate", "trained", *names, "mean", "CPU s", "peak RAM"], rows)


def chart(study, file):
    starts = study.starts()
    figure, panels = plt.subplots(
        1, len(starts), figsize=(4 * len(starts) + 1.5, 3.4), squeeze=False)
    names = list(dict.fromkeys(run["of"]["method"] for run in study.runs))
    for panel, start in zip(panels[0], starts):
        for method, runs in study.methods(start).items():
            place = names.index(method)
            steps = sorted(map(int, runs[0]["held"]))
            panel.plot(
                steps,
                [statistics.fmean(study.excess(run, str(step)) for run in runs)
                 for step in steps],
                label=method, marker=".", color=f"C{place % 10}",
                linestyle="-" if place < 10 else "--")
        panel.set_title(f"{start[0]:.0%} of the expert weights kept, {start[1]}")
        panel.set_xlabel("step")
    panels[0][0].set_ylabel("excess over the untrimmed, nats a token")
    figure.legend(*panels[0][0].get_legend_handles_labels(),
                  loc="outside right upper")
    figure.savefig(file, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--document", type=pathlib.Path, required=True)
    options = parser.parse_args()
    study = Study([json.loads(line) for line
                   in options.results.read_text().splitlines()])
    starts = {" ".join(map(str, start)): start for start in study.starts()}
    document_blocks.fill(
        options.document,
        lambda _, of: table(study, starts[of]) if of in starts else None)
    chart(study, options.document.with_name("recovery.svg"))


if __name__ == "__main__":
    main()
