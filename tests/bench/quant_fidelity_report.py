# SPDX-License-Identifier: Apache-2.0
"""Puts the results of quant_fidelity.py into docs/quant-fidelity.md: fills what
stands between `<!-- TABLE MODEL -->` and `<!-- end -->`. The text between is
written by hand.

    python tests/bench/quant_fidelity_report.py RESULTS... [--docs docs]
"""

import argparse
import json
import pathlib
import statistics

import document_blocks
import quant_fidelity_grid as grid


class Measured:
    """The results of one model."""

    def __init__(self, lines):
        self.lines = {grid.Run(**line["of"]): line for line in lines}
        self.domains = list(lines[0]["domains"])

    def cells(self, run):
        """What there is to say of a run, or None where it was not measured."""
        line = self.lines.get(run)
        if line is None:
            return None
        domains = line["domains"]
        losses = [domains[d]["nll"] for d in self.domains]
        diverged = [domains[d]["kl"] for d in self.domains if "kl" in domains[d]]
        experts = line["experts"]
        bits = 8 * experts["bytes"] / experts["weights"]
        return [f"{bits:.3f}", f"{line['bytes']:,}", *map("{:.4f}".format, losses),
                f"{statistics.fmean(losses):.4f}",
                f"{statistics.fmean(diverged):.5f}" if diverged else "–",
                f"{line['seconds']['cpu']:.0f}"
                if line["seconds"]["cpu"] else "–"]

    def table(self, named_runs):
        rows = [(name, self.cells(run)) for name, run in named_runs]
        return document_blocks.table(
            ["", "bits", "bytes", *self.domains, "mean", "KL", "seconds"],
            [[name, *cells] for name, cells in rows if cells])


def scheme(run):
    if run.bits == "bf16":
        return "bf16"
    if run == grid.QMOE:
        return "QMoE's recipe (min, 0, max a row; its dictionary's rate)"
    return f"{run.bits} {run.method}"


def headline(model):
    return model.table([(scheme(run), run) for run in grid.headline()])


def trimmed(model):
    return model.table([(f"{scheme(run)}, {100 * run.keep:g} % kept", run)
                        for run in grid.trimmed()])


def variants(changes):
    """A scheme's rows together, each change beside what it changes."""
    def make(model):
        return model.table(
            [(f"{bits}, {name}", grid.Run(bits, **change))
             for bits in grid.LOW_BITS for name, change in changes.items()
             if bits != "ternary" or "zeros" not in change])

    return make


def downs(model):
    return model.table([(f"{bits}, down {down}", grid.Run(bits, down=down))
                        for bits, down in grid.DOWNS])


def coded(model):
    return model.table(
        [(f"{run.bits} {run.method}, `--entropy-weight {run.entropy_weight:g}` "
          f"`--group {run.group}`", run) for run in grid.coded()])


TABLES = {
    "headline": headline, "trimmed": trimmed, "downs": downs, "coded": coded,
    "refinement": variants(grid.REFINEMENTS),
    "calibration": variants(grid.CALIBRATIONS), "grids": variants(grid.GRIDS)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=pathlib.Path, nargs="+")
    parser.add_argument("--docs", type=pathlib.Path,
                        default=pathlib.Path("docs"))
    options = parser.parse_args()
    lines = [json.loads(line) for file in options.results
             for line in file.read_text().splitlines()]
    models = {name: Measured([l for l in lines if l["model"] == name])
              for name in dict.fromkeys(line["model"] for line in lines)}
    document_blocks.fill(
        options.docs / "quant-fidelity.md",
        lambda name, model: TABLES[name](models[model]))


if __name__ == "__main__":
    main()
