# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/trim-fidelity.md, each a function of one model's results
to lines of Markdown."""

import statistics

import trim_fidelity_grid as grid
from document_blocks import table


def nats(value):
    return f"{value:+.4f}" if abs(value) < 0.1 else f"{value:+.3f}"


def percent(share):
    return f"{100 * share:g} %"


def best_marked(losses):
    """Mean excess of each, the least in bold, "–" where none was measured."""
    had = [loss.mean_excess for loss in losses if loss]
    cells = []
    for loss in losses:
        text = nats(loss.mean_excess) if loss else "–"
        best = loss and loss.mean_excess == min(had)
        cells.append(f"**{text}**" if best else text)
    return cells


def domain_table(model, header, rows):
    """Rows of (labels, loss) with what each domain lost."""
    lines = []
    for names, loss in rows:
        cells = [nats(loss.excess[d]) for d in model.domains]
        lines.append([*names, nats(loss.mean_excess), *cells,
                      f"{loss.mean_kl:.4f}", f"{100 * loss.mean_top1:.1f} %"])
    return table([*header, "mean", *model.domains, "KL", "top-1"], lines)


def headline(model):
    rows = []
    for run in sorted(model.runs("headline"), key=lambda run: -run.keep):
        loss = model.losses[run]
        shape = "stock shape" if run.unit == "mixed" else run.scope
        name = f"`{run.score}`, {shape}, {run.repair}"
        size = loss.line["after"]["bytes"] / loss.line["before"]["bytes"]
        rows.append(((percent(run.keep), name, f"{size:.2f}"), loss))
    return domain_table(model, ["kept", "score, scope, repair", "bytes"], rows)


def scores(model):
    columns = [(scope, repair) for repair in ("none", "ridge")
               for scope in grid.SCOPES]
    losses = [[model.find(score, scope, repair=repair)
               for scope, repair in columns] for score in grid.NEURON_SCORES]
    marked = list(zip(*(best_marked(column) for column in zip(*losses))))
    return table(
        ["score", *(f"{scope}, {repair}" for scope, repair in columns)],
        [[f"`{score}`", *cells]
         for score, cells in zip(grid.NEURON_SCORES, marked)])


def score_domains(model):
    rows = [((f"`{score}`",), loss) for score in grid.NEURON_SCORES
            if (loss := model.find(score, repair="ridge"))]
    return domain_table(model, ["score"], rows)


def keeps(model):
    columns = [(keep, repair) for keep in grid.KEEPS
               for repair in ("none", "ridge")]
    losses = [[model.find(score, keep=keep, repair=repair)
               for keep, repair in columns] for score in grid.NEURON_SCORES]
    marked = list(zip(*(best_marked(column) for column in zip(*losses))))
    return table(
        ["score", *(f"{percent(keep)}, {repair}" for keep, repair in columns)],
        [[f"`{score}`", *cells]
         for score, cells in zip(grid.NEURON_SCORES, marked)])


WIDTHS = [
    ("free", dict(repair="ridge")),
    ("`--widths per-layer`", dict(widths="per-layer", repair="ridge")),
    ("`--widths uniform`", dict(widths="uniform", repair="ridge")),
    ("`--scope expert`", dict(scope="expert", repair="ridge")),
    ("`--unit mixed --widths uniform`, joint",
     dict(unit="mixed", widths="uniform", repair="joint")),
]


def widths(model):
    rows = []
    for score in ("obs", "mask_fisher", "random"):
        for name, more in WIDTHS:
            losses = [model.find(score, keep=keep, **more)
                      for keep in grid.KEEPS]
            if any(losses):
                rows.append([f"`{score}`", name, *(
                    nats(loss.mean_excess) if loss else "–"
                    for loss in losses)])
    for score in ("grad_abs", "random"):
        losses = [model.find(score, "expert", keep=keep) for keep in grid.KEEPS]
        rows.append([f"`{score}`", "`--scope expert`, no repair", *(
            nats(loss.mean_excess) if loss else "–" for loss in losses)])
    return table(["score", "widths", *map(percent, grid.KEEPS)], rows)


def calibration(model):
    rows = []
    for keep in (0.5, 0.25):
        for score in ("obs", "mask_fisher", "random"):
            for name in ["mixed", *model.domains]:
                loss = model.find(score, keep=keep, repair="ridge",
                                  calibration=name)
                if loss:
                    rows.append(((percent(keep), f"`{score}`", name), loss))
    return domain_table(model, ["kept", "score", "calibrated on"], rows)


def top(model):
    rows = [((f"`{run.score}`", str(run.remove_top)), model.losses[run])
            for run in model.runs("top")]
    return domain_table(model, ["score", "neurons removed"], rows)


def seeds(model):
    rows = []
    for keep in (0.5, 0.25):
        for score in grid.FEW_SCORES:
            means = [loss.mean_excess for seed in (1, 2, 3)
                     if (loss := model.find(score, keep=keep, repair="ridge",
                                            seed=seed))]
            if len(means) > 1:
                rows.append([percent(keep), f"`{score}`", str(len(means)),
                             nats(statistics.fmean(means)), nats(min(means)),
                             nats(max(means))])
    return table(["kept", "score", "seeds", "mean", "least", "most"], rows)


def repairs(model):
    rows = []
    for keep in (0.5, 0.25):
        for score in ("obs", "mask_fisher", "random"):
            for repair in ("none", "constant", "ridge", "ridge+constant",
                           "joint"):
                for inputs in ("original", "trimmed"):
                    loss = model.find(score, keep=keep, repair=repair,
                                      inputs=inputs)
                    if loss:
                        name = repair + (
                            ", trimmed inputs" if inputs == "trimmed" else "")
                        rows.append(
                            ((percent(keep), f"`{score}`", name), loss))
    return domain_table(model, ["kept", "score", "repair"], rows)


def experts(model):
    rows = [((percent(run.keep), f"`{run.score}`"), model.losses[run])
            for run in model.runs("experts")]
    return domain_table(model, ["experts kept", "score"], rows)


def speed(model):
    rows = []
    for line in model.other.get("speed", []):
        for name, rate in line["tokens_per_second"].items():
            scope, _, keep = name.partition(" ")
            rows.append([percent(float(keep)) if keep else "100 %",
                         scope if keep else "–", f"{rate:,.0f}",
                         f"{line['times_untrimmed'][name]:.2f}"])
    return table(["kept", "scope", "tokens/s", "times untrimmed"], rows)


def cost(model):
    rows = []
    for line in model.other.get("cost", []):
        for name, seconds in line["seconds"].items():
            forward = "forward" in name or name == "wanda"
            rate = line["of"]["tokens"] / seconds
            rows.append([
                name, f"{rate:,.0f}",
                "–" if forward else f"{line['to_backward'][name]:.2f}",
                "–" if forward else f"{line['to_gradient'][name]:.2f}",
                f"{line['to_forward'][name]:.2f}"])
    return table(["sweep", "tokens/s", "× plain backward",
                  "× all weights' gradients", "× plain forward"], rows)


def seconds(model):
    """Of one core, medians over runs."""
    rows = []
    for line in model.other.get("analyze", []):
        if line["of"] == {"calibration": "mixed", "seed": 1}:
            rows.append([f"analyze, {len(line['scores'])} scores, "
                         f"{line['tokens']:,} tokens",
                         f"{line['seconds']['cpu']:.1f}"])
    for repair in ("none", "constant", "ridge", "ridge+constant", "joint"):
        spent = [loss.line["seconds"]["trim"]["cpu"]
                 for run, loss in model.losses.items()
                 if run.repair == repair and run.inputs == "original"]
        if spent:
            rows.append([f"trim, repair {repair}",
                         f"{statistics.median(spent):.1f}"])
    return table(["step", "seconds"], rows)


TABLES = {make.__name__: make for make in [
    headline, scores, score_domains, keeps, widths, calibration, top, seeds,
    repairs, experts, seconds, speed, cost]}
