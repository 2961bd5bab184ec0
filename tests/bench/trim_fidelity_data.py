# SPDX-License-Identifier: Apache-2.0
"""Reads the results of trim_fidelity.py: what each trimmed model lost."""

import csv
import dataclasses
import json
import statistics

import trim_fidelity_grid as grid


@dataclasses.dataclass(frozen=True)
class Loss:
    """Of a trimmed model against the untrimmed one, by held-out domain."""

    excess: dict  # nats a token
    kl: dict      # nats a token, of the untrimmed from the trimmed
    top1: dict    # share of tokens with the same likeliest next token
    line: dict

    @property
    def mean_excess(self):
        return statistics.fmean(self.excess.values())

    @property
    def mean_kl(self):
        return statistics.fmean(self.kl.values())

    @property
    def mean_top1(self):
        return statistics.fmean(self.top1.values())


class Measured:
    """The results of one model."""

    def __init__(self, name, lines):
        self.name = name
        self.base, self.losses, self.other = {}, {}, {}
        for line in lines:
            if line["kind"] == "base":
                self.base[line["of"]["held"]] = line["domains"]
        for line in lines:
            if line["kind"] == "trim":
                run = grid.Run(**line["of"])
                self.losses[run] = self.loss(line, self.base[run.held])
            else:
                self.other.setdefault(line["kind"], []).append(line)
        self.domains = list(next(iter(self.base.values())))

    @staticmethod
    def loss(line, base):
        entries = line["domains"]
        return Loss(
            {d: e["nll"] - base[d]["nll"] for d, e in entries.items()},
            {d: e["kl"] for d, e in entries.items()},
            {d: e["top1"] for d, e in entries.items()}, line)

    def find(self, *arguments, **more):
        """The loss of the run of these, or None."""
        return self.losses.get(grid.Run(*arguments, **more))

    def runs(self, section):
        return [run for run in grid.SECTIONS[section](self.domains)
                if run in self.losses]


def load(files):
    lines = [json.loads(line) for file in files
             for line in file.read_text().splitlines()]
    names = list(dict.fromkeys(line["model"] for line in lines))
    return {name: Measured(name, [l for l in lines if l["model"] == name])
            for name in names}


def write_csv(models, file):
    """Every run, a line a held-out domain."""
    fields = [field.name for field in dataclasses.fields(grid.Run)]
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["model", *fields, "bytes", "trim_cpu_seconds",
                         "domain", "excess", "kl", "top1"])
        for model in models.values():
            for run, loss in model.losses.items():
                values = [getattr(run, field) for field in fields]
                seconds = loss.line["seconds"]["trim"]["cpu"]
                for d in model.domains:
                    writer.writerow(
                        [model.name, *values, loss.line["after"]["bytes"],
                         f"{seconds:.2f}", d, f"{loss.excess[d]:.5f}",
                         f"{loss.kl[d]:.5f}", f"{loss.top1[d]:.4f}"])
