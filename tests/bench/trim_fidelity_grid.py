# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/trim_fidelity.py measures: the sections of its grid, each a
list of runs. The most telling come first, so that a run broken off early is of
use."""

import dataclasses

NEURON_SCORES = ["obs", "mask_fisher", "heapr", "camera", "wanda",
                 "weight_fisher", "grad_abs", "magnitude", "random"]
EXPERT_SCORES = ["reap", "frequency", "gate_mass", "expert_fisher"]
SCOPES = ["expert", "layer", "global"]
# Those whose results over seeds and domains are worth their time.
FEW_SCORES = ["obs", "mask_fisher", "wanda", "random"]
KEEPS = [0.75, 0.5, 0.25]
TOP_COUNTS = [1, 4, 16, 64]
TOP_SCORES = ["mask_fisher", "obs", "grad_abs", "random"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A trimmed model: how it is planned and repaired, and what it is held
    against. `remove_top`: instead of a plan by `keep`, the highest-ranked
    neurons of the model go."""

    score: str = "obs"
    scope: str = "global"
    unit: str = "neuron"
    widths: str = "free"
    keep: float = 0.5
    repair: str = "none"
    inputs: str = "original"
    calibration: str = "mixed"
    seed: int = 1
    held: str = "part"
    remove_top: int = 0

    def key(self):
        return dataclasses.asdict(self)


# What the released code of "Less is MoE" does.
def released(**more):
    return Run("grad_abs", "expert", repair="none", **more)


# One number of experts and one width for all layers, as stock loaders want.
def stock(**more):
    return Run("obs", unit="mixed", widths="uniform", repair="joint", **more)


def headline(domains):
    """The recipe and its rivals, on all held-out text."""
    runs = []
    for keep in [0.5, 0.25, 0.75]:
        runs.append(Run("obs", repair="ridge", keep=keep, held="all"))
        runs.append(Run("obs", repair="joint", keep=keep, held="all"))
        runs.append(stock(keep=keep, held="all"))
        runs.append(released(keep=keep, held="all"))
        runs.append(Run("random", repair="ridge", keep=keep, held="all"))
        if keep == 0.75:
            continue
        for score in ["mask_fisher", "wanda"]:
            runs.append(Run(score, repair="ridge", keep=keep, held="all"))
    return runs


def scores(domains):
    """Every score in every scope, with and without repair, at one half."""
    return [Run(score, scope, repair=repair)
            for repair in ["ridge", "none"]
            for scope in ["global", "expert", "layer"]
            for score in NEURON_SCORES]


def keeps(domains):
    """Every score at three quarters and a quarter, pooled over the model."""
    return [Run(score, keep=keep, repair=repair)
            for keep in [0.25, 0.75]
            for repair in ["ridge", "none"]
            for score in NEURON_SCORES]


def repairs(domains):
    """Every repair there is, for the best score and two others."""
    runs = []
    for keep in [0.5, 0.25]:
        runs += [Run(score, keep=keep, repair=repair)
                 for score in ["obs", "mask_fisher", "random"]
                 for repair in ["constant", "ridge+constant"]]
        runs.append(Run(keep=keep, repair="ridge", inputs="trimmed"))
        runs.append(Run(keep=keep, repair="joint"))
    return runs


def widths(domains):
    """How near widths that stock loaders take come to free ones."""
    runs = []
    for keep in [0.5, 0.25, 0.75]:
        for score in ["obs", "mask_fisher", "random"]:
            runs.append(Run(score, "expert", keep=keep, repair="ridge"))
            for kind in ["per-layer", "uniform"]:
                runs.append(Run(score, widths=kind, keep=keep, repair="ridge"))
        runs.append(stock(keep=keep))
        runs.append(Run("random", "expert", keep=keep))
        runs.append(released(keep=keep))
    return runs


def calibration(domains):
    """What survives when calibrated on one domain only."""
    return [Run(score, calibration=domain, keep=keep, repair="ridge")
            for keep in [0.5, 0.25]
            for score in ["obs", "mask_fisher", "random"]
            for domain in domains]


def top(domains):
    """Is there an ability in a handful of neurons?"""
    return [Run(score, remove_top=count, keep=1.0)
            for score in TOP_SCORES for count in TOP_COUNTS]


def seeds(domains):
    """The spread over draws of calibration text."""
    return [Run(score, keep=keep, repair="ridge", seed=seed)
            for seed in [1, 2, 3]
            for keep in [0.5, 0.25]
            for score in FEW_SCORES]


def experts(domains):
    """Whole experts cut, by their own scores and by their neurons' sum."""
    return [Run(score, unit="expert", keep=keep)
            for keep in [0.75, 0.5]
            for score in EXPERT_SCORES + ["mask_fisher", "obs", "random"]]


SECTIONS = {section.__name__: section for section in [
    headline, top, scores, widths, calibration, keeps, seeds, repairs,
    experts]}


def runs_of(names, domains):
    """The runs of these sections, each once, in order."""
    return list(dict.fromkeys(
        run for name in names for run in SECTIONS[name](domains)))


def scores_needed(runs, calibration_name, seed):
    """The scores that the runs of one calibration set rank by. The drawn set
    of the grid proper is scored by all, which is what analyze is timed with."""
    if calibration_name == "mixed" and seed == 1:
        return NEURON_SCORES + EXPERT_SCORES
    wanted = {run.score for run in runs
              if (run.calibration, run.seed) == (calibration_name, seed)}
    return [score for score in NEURON_SCORES + EXPERT_SCORES if score in wanted]
