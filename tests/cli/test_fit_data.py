# SPDX-License-Identifier: Apache-2.0
"""fit with data: the best plan within a budget, carried out and measured."""

import json

from conftest import HELD, MODEL, TRAIN
from test_bad_input import refused

BUDGET = 1_250_000
DATA = ("--data", TRAIN, "--tokens", 4096, "--seq-len", 128)


def tensor_bytes(fettle, folder):
    done = fettle("inspect", folder, "--json", "-", "--quiet")
    return json.loads(done.out)["bytes"]


def test_a_plan_takes_what_it_says_and_is_measured(fettle, tmp_path):
    out, recipe = tmp_path / "fitted", tmp_path / "recipe.yaml"
    done = fettle("fit", MODEL, "--budget", f"{BUDGET}B", *DATA, "--held",
                  HELD, "--out", out, "--recipe", recipe, "--json", "-",
                  "--quiet")
    assert done.status == 0, done.err
    made = json.loads(done.out)
    chosen = made["chosen"]
    assert chosen["bytes"] <= BUDGET
    assert tensor_bytes(fettle, made["model"]) == chosen["bytes"]
    assert made["measured"]["files"][0]["kl"] > 0
    # No plain choice of no more bytes is expected to lose less.
    plain = [p for p in made["plain"] if p["bytes"] <= BUDGET]
    assert plain and all(p["nats"] >= chosen["nats"] for p in plain)
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
                  "--plan-only", "--objective", "speed", "--json", "-",
                  "--quiet")
    assert fast.status == 0, fast.err
    assert (out / "scores" / "scores.json").stat().st_mtime_ns == scores
    assert json.loads(fast.out)["chosen"]["products"] < chosen["products"]


def test_what_can_not_be_planned_is_refused(fettle, tmp_path):
    out = tmp_path / "out"
    no_out = fettle("fit", MODEL, "--budget", "2MB", "--data", TRAIN)
    assert no_out.status == 2 and "--out" in no_out.err
    no_bound = fettle("fit", MODEL, "--data", TRAIN, "--out", out)
    assert no_bound.status == 2 and "needs a bound" in no_bound.err
    engine = fettle("fit", MODEL, "--budget", "2MB", "--data", TRAIN, "--out",
                    out, "--engine", "llama.cpp")
    assert engine.status == 2 and "--engine fettle" in engine.err
    report = fettle("fit", MODEL, "--budget", "2MB", "--data", TRAIN, "--out",
                    out, "--report", tmp_path / "fit.html")
    assert report.status == 2 and "--report" in report.err
    refused(fettle("fit", MODEL, "--budget", "2MB", "--data",
                   tmp_path / "none.jsonl", "--out", out), "none.jsonl")
    refused(fettle("quant", MODEL, "--budget", "2MB", "--prices", MODEL,
                   "--data", TRAIN, "--tokens", 512, "--out", out),
            "row_prices")
    head = fettle("quant", MODEL, "--budget", "2MB", "--allocate", "head",
                  "--data", TRAIN, "--out", out)
    assert head.status == 2 and "only by --prices" in head.err
    assert not out.exists()
