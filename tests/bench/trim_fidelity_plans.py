# SPDX-License-Identifier: Apache-2.0
"""Rewrites a trim_plan.json that keeps everything to one that lacks the
neurons of highest score in the whole model."""

import json


def spans(neurons):
    """"0-3,7" of [0, 1, 2, 3, 7]."""
    text, begin = [], None
    for at, neuron in enumerate(neurons):
        if begin is None:
            begin = neuron
        if at + 1 == len(neurons) or neurons[at + 1] != neuron + 1:
            text.append(str(begin) if begin == neuron else f"{begin}-{neuron}")
            begin = None
    return ",".join(text)


def ranked(scores, score):
    """(score, layer, expert, neuron) of every neuron, the highest first."""
    import safetensors.numpy

    arrays = safetensors.numpy.load_file(scores / "scores.safetensors")
    layers = json.loads((scores / "scores.json").read_text())["layers"]
    places = []
    for layer, entry in enumerate(layers):
        values = arrays.get(f"layers.{layer}.neuron.{score}")
        at = 0
        for expert, width in enumerate(entry["widths"]):
            places += [(float(values[at + k]), layer, expert, k)
                       for k in range(width)]
            at += width
    return sorted(places, reverse=True)


def remove_top(plan_file, scores, score, count):
    plan = json.loads(plan_file.read_text())
    gone = {place[1:] for place in ranked(scores, score)[:count]}
    layers = json.loads((scores / "scores.json").read_text())["layers"]
    for layer, entry in enumerate(plan["layers"]):
        for expert in entry["experts"]:
            e = expert["expert"]
            expert["neurons"] = spans(
                [k for k in range(layers[layer]["widths"][e])
                 if (layer, e, k) not in gone])
    plan_file.write_text(json.dumps(plan))
