# SPDX-License-Identifier: Apache-2.0
"""fit with data: the best plan within a budget, carried out and measured."""

import json
import pathlib

from conftest import HELD, MODEL, TRAIN
from test_bad_input import refused

BUDGET = 1_250_000
DATA = ("--data", TRAIN, "--tokens", 4096, "--seq-len", 128)


def width_of(spans):
    """How many neurons are in spans such as 0-13,15."""
    ends = [list(map(int, span.split("-"))) for span in spans.split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)


def tensor_bytes(fettle, folder):
    done = fettle("inspect", folder, "--json", "-", "--quiet")
    return json.loads(done.out)["bytes"]


def test_a_plan_takes_what_it_says_and_is_measured(fettle, tmp_path):
    out, recipe = tmp_path / "fitted", tmp_path / "recipe.yaml"
    done = fettle("fit", MODEL, "--budget", f"{BUDGET}B", *DATA, "--held",
                  HELD, "--out", out, "--recipe", recipe, "--ram", "1GiB",
                  "--context", 400, "--json", "-", "--quiet")
    assert done.status == 0, done.err
    made = json.loads(done.out)
    chosen = made["chosen"]
    assert chosen["bytes"] <= BUDGET
    assert tensor_bytes(fettle, made["model"]) == chosen["bytes"]
    assert made["measured"]["files"][0]["kl"] > 0
    # Three points were measured, on text that nothing was fitted to, and the
    # expected losses are near them.
    assert [p["name"] for p in made["probes"]] == ["cut", "rounded", "both"]
    assert all(0.5 < p["nats"] / p["measured"] < 2 for p in made["probes"])
    assert "nothing was fitted to" in made["calibration"]["text"]
    assert not list(out.glob("probe-*/"))
    # A run of the finished model keeps to what was promised.
    memory = made["memory"]
    assert memory["promised_bytes"] == made["promised"]["total_bytes"]
    assert 0 < memory["measured_bytes"] <= memory["promised_bytes"]
    page = (out / "report.html").read_text()
    assert "<canvas" in page and "of the neurons at int4" in page
    # No plain choice of no more bytes has a lower price. Few tokens price the
    # plan, and it costs more than they say.
    plain = [p["nats"] for p in made["plain"] if p["bytes"] <= BUDGET]
    assert made["chosen_cost"] == 6
    assert plain and min(plain) >= chosen["nats"] / 6
    # The frontier falls.
    frontier = made["frontier"]
    assert len(frontier) > 5
    for worse, better in zip(frontier, frontier[1:]):
        assert worse["bytes"] < better["bytes"]
        assert worse["nats"] > better["nats"]
    # The chain it wrote finds everything done.
    again = fettle("run", recipe)
    assert again.status == 0, again.err
    assert "skipped" in again.out or "done" in again.out, again.out

    # Another budget needs no other measurement; speed asks for fewer products.
    scores = (out / "scores" / "scores.json").stat().st_mtime_ns
    fast = fettle("fit", MODEL, "--budget", f"{BUDGET}B", *DATA, "--out", out,
                  "--ram", "1GiB", "--context", 400, "--plan-only", "--objective", "speed", "--keep-min", 0.3,
                  "--calibrate", "usual", "--json", "-", "--quiet")
    assert fast.status == 0, fast.err
    assert (out / "scores" / "scores.json").stat().st_mtime_ns == scores
    fast = json.loads(fast.out)
    assert fast["chosen"]["products"] < chosen["products"]
    assert fast["chosen"]["kept"] >= 0.3 and fast["probes"] == []


def test_a_plan_for_another_program_has_its_shape(fettle, tmp_path):
    out, budget = tmp_path / "fitted", 2_000_000
    done = fettle("fit", MODEL, "--budget", f"{budget}B", *DATA, "--out", out,
                  "--engine", "llama.cpp", "--calibrate", "usual", "--json",
                  "-", "--quiet")
    assert done.status == 0, done.err
    made = json.loads(done.out)
    assert made["chosen"]["bytes"] <= budget
    plan = json.loads((out / "trim_plan.json").read_text())
    widths = {width_of(expert["neurons"]) for layer in plan["layers"]
              for expert in layer["experts"]}
    assert len(widths) == 1 and widths.pop() in (32, 64, 96)
    [file] = pathlib.Path(made["exported"]).glob("*.gguf")
    # Its tokenizer and the heads of tensors come on top.
    assert budget * 0.6 < file.stat().st_size < budget + 300_000


def test_what_can_not_be_planned_is_refused(fettle, tmp_path):
    out = tmp_path / "out"
    no_out = fettle("fit", MODEL, "--budget", "2MB", "--data", TRAIN)
    assert no_out.status == 2 and "--out" in no_out.err
    no_bound = fettle("fit", MODEL, "--data", TRAIN, "--out", out)
    assert no_bound.status == 2 and "needs a bound" in no_bound.err
    tuning = fettle("fit", MODEL, "--budget", "2MB", "--data", TRAIN, "--out",
                    out, "--for", "tune")
    assert tuning.status == 2 and "--for inference" in tuning.err
    refused(fettle("fit", MODEL, "--budget", "50KiB", "--data", TRAIN, "--out",
                   out), "at least", "attention", "50.0 KiB")
    refused(fettle("fit", MODEL, "--budget", "2MB", "--data", TRAIN, "--out",
                   out, "--engine", "vllm", "--bits-min", "int2"),
            "no place for int2")
    refused(fettle("fit", MODEL, "--budget", "2MB", "--data",
                   tmp_path / "none.jsonl", "--out", out), "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    for text in ("", '{"text": ""}\n', '{"text": "a"}\n'):
        empty.write_text(text)
        refused(fettle("fit", MODEL, "--budget", "2MB", "--data", empty,
                       "--out", out), "empty.jsonl")
        refused(fettle("fit", MODEL, "--budget", "2MB", "--data", TRAIN,
                       "--held", empty, "--out", out), "empty.jsonl")
    refused(fettle("quant", MODEL, "--budget", "2MB", "--prices", MODEL,
                   "--data", TRAIN, "--tokens", 512, "--out", out),
            "row_prices")
    head = fettle("quant", MODEL, "--budget", "2MB", "--allocate", "head",
                  "--data", TRAIN, "--out", out)
    assert head.status == 2 and "only by --prices" in head.err
    assert not out.exists()
