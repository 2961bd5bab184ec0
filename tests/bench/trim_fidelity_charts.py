# SPDX-License-Identifier: Apache-2.0
"""The charts of docs/trim-fidelity.md."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

import trim_fidelity_grid as grid

# The same picture from the same results: no dates, no random ids.
matplotlib.rcParams.update({
    "svg.hashsalt": "fettle", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False,
    "figure.constrained_layout.use": True})
COLOURS = ["#0b6e4f", "#1f77b4", "#7b4fa3", "#d08c00", "#c1440e", "#555555",
           "#8c8c8c"]
# Below it, excess is rounding and the choice of held-out text.
FLOOR = 2e-4


def shown(loss):
    return max(loss.mean_excess, FLOOR) if loss else None


def save(figure, file):
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def scores(model, file):
    """Mean excess at one half, by score, scope and repair."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for panel, repair in zip(panels, ("none", "ridge")):
        for offset, scope, colour in zip((-0.25, 0, 0.25), grid.SCOPES, (
                COLOURS[4], COLOURS[3], COLOURS[0])):
            places, heights = [], []
            for at, score in enumerate(grid.NEURON_SCORES):
                loss = model.find(score, scope, repair=repair)
                if loss:
                    places.append(at + offset)
                    heights.append(shown(loss))
            panel.bar(places, heights, 0.25, color=colour,
                      label=f"scope {scope}")
        panel.set_yscale("log")
        panel.set_title(f"half of the neurons kept, repair {repair}")
        panel.set_xticks(range(len(grid.NEURON_SCORES)), grid.NEURON_SCORES,
                         rotation=40, ha="right")
    panels[0].set_ylabel("excess, nats a token")
    panels[0].legend()
    save(figure, file)


RECIPES = [
    ("obs, global, ridge", dict(score="obs", repair="ridge")),
    ("mask_fisher, global, ridge", dict(score="mask_fisher", repair="ridge")),
    ("wanda, global, ridge", dict(score="wanda", repair="ridge")),
    ("random, global, ridge", dict(score="random", repair="ridge")),
    ("grad_abs, one width, none", dict(score="grad_abs", scope="expert")),
]


def keeps(models, file):
    """Mean excess by what is kept, of the recipe and its rivals."""
    figure, panels = plt.subplots(1, len(models), sharey=True, squeeze=False,
                                  figsize=(2 + 3.5 * len(models), 3))
    for panel, model in zip(panels[0], models.values()):
        for (name, more), colour in zip(RECIPES, COLOURS):
            points = [(100 * keep, shown(loss)) for keep in grid.KEEPS
                      if (loss := model.find(held="all", keep=keep, **more))]
            if points:
                panel.plot(*zip(*points), "o-", color=colour, label=name)
        panel.set_yscale("log")
        panel.invert_xaxis()
        panel.set_xticks([100 * keep for keep in grid.KEEPS])
        panel.set_xlabel("neurons kept, %")
        panel.set_title(model.name)
    panels[0][0].set_ylabel("excess, nats a token")
    panels[0][-1].legend(fontsize=8, loc="center left",
                         bbox_to_anchor=(1, 0.5))
    save(figure, file)


def calibration(model, file):
    """What each domain loses by what was calibrated on."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2))
    for panel, keep in zip(panels, (0.5, 0.25)):
        names, rows = [], []
        for name in ["mixed", *model.domains]:
            loss = model.find(keep=keep, repair="ridge", calibration=name)
            if loss:
                names.append(name)
                rows.append([loss.excess[d] for d in model.domains])
        if not rows:
            continue
        panel.imshow(
            [[max(value, 1e-3) for value in row] for row in rows],
            norm=matplotlib.colors.LogNorm(1e-3, 3), cmap="YlOrRd")
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                panel.text(x, y, f"{value:.3f}", ha="center", va="center",
                           color="white" if value > 0.5 else "black")
        panel.set_xticks(range(len(model.domains)), model.domains,
                         rotation=30, ha="right")
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel("held-out domain")
        panel.set_ylabel("calibrated on")
        panel.set_title(f"obs, ridge, {100 * keep:g} % kept")
    save(figure, file)


def draw(models, folder):
    keeps(models, folder / "trim-fidelity-keeps.svg")
    for model in models.values():
        if model.find(repair="ridge"):
            scores(model, folder / f"trim-fidelity-scores-{model.name}.svg")
        if any(run.calibration != "mixed" for run in model.losses):
            calibration(
                model, folder / f"trim-fidelity-calibration-{model.name}.svg")
