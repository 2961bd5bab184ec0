# SPDX-License-Identifier: Apache-2.0
"""fit from headers alone: what it tells, what it refuses, and whether a run
takes as much memory as was promised, and no more."""

import json
import re
import shutil

import pytest
from conftest import MODEL
from test_bad_input import refused

# Of what is promised, a run takes at least so much: a promise that is kept by
# counting twice as much would be worth little.
LEAST_SHARE = 0.6
PROMPT = "Compute 17 + 25 and 3 * 9, then sort 8 3 5 1. "


def fit(fettle, *arguments):
    done = fettle("fit", *arguments, "--json", "-", "--quiet")
    assert done.status == 0, done.err
    return json.loads(done.out)


def row(table, keep, scheme):
    return next(r for r in table["rows"]
                if r["keep"] == keep and r["scheme"] == scheme)


def test_the_table_says_what_fits_and_what_to_do_next(fettle, tmp_path):
    page = tmp_path / "fit.html"
    done = fettle("fit", MODEL, "--ram", "258MiB", "--context", 512,
                  "--report", page)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert all(len(line) <= 100 for line in lines), max(lines, key=len)
    assert "16 experts" in lines[0]
    rows = [line for line in lines if re.match(r"(100|75|50|25) %  ", line)]
    assert len(rows) == 24
    assert any(" left " in line for line in rows)
    assert lines[-1].startswith("next: fettle analyze")
    assert f"report: {page}" in lines
    html = page.read_text()
    assert "<canvas" in html and "50 % as int4" in html


def test_a_config_alone_is_enough(fettle, tmp_path):
    shutil.copy(MODEL / "config.json", tmp_path)
    alone = fit(fettle, tmp_path, "--ram", "1GiB")
    whole = fit(fettle, MODEL, "--ram", "1GiB")
    assert alone["rows"] == whole["rows"]
    assert alone["assumed"] and not whole["assumed"]


def other_family(folder):
    """A model that llama.cpp computes otherwise; headers are enough."""
    config = json.loads((MODEL / "config.json").read_text())
    config["norm_topk_prob"] = False
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# Arguments after the model, the exit status, words of the line.
REFUSED = {
    "a budget below the least": (
        ["--budget", "1KiB"], 1, ["--budget", "the least is"]),
    "RAM below the least": (
        ["--ram", "10MiB"], 1, ["--ram", "the least is", "experts",
                                "conversations", "program and libraries"]),
    "a disk below the least": (
        ["--disk", "1KiB"], 1, ["--disk", "the least is"]),
    "a card below the least": (
        ["--vram", "10MiB", "--engine", "llama.cpp"], 1,
        ["--vram", "the least is", "experts", "head"]),
    "a context beyond the model's": (
        ["--context", "2000"], 1, ["--context", "1024", "2000"]),
    "an engine without a card": (
        ["--ram", "1GiB", "--engine", "vllm"], 1, ["vllm", "give --vram"]),
    "an engine that does not tune": (
        ["--for", "tune", "--engine", "llama.cpp"], 1, ["no program that"]),
    "an engine for no such family": (
        ["--ram", "1GiB", "--engine", "llama.cpp"], 1,
        ["llama.cpp", "norm_topk_prob"]),
    "a size without a unit": (["--vram", "12"], 2, ["expected a unit"]),
    "a size that is none": (["--budget", "-1GiB"], 2, ["--budget"]),
    "a page of tuning": (
        ["--for", "tune", "--report", "page.html"], 2, ["--report"]),
    "an engine that is none": (["--engine", "mlx"], 2, ["llama.cpp"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_not_be_is_refused_in_a_line(fettle, tmp_path, what):
    arguments, status, words = REFUSED[what]
    model = MODEL
    if what == "an engine for no such family":
        model = other_family(tmp_path / "other")
    before = sorted(tmp_path.rglob("*"))
    done = fettle("fit", model, *arguments, cwd=tmp_path)
    assert done.status == status and done.out == "", done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1 or status == 2, done.err
    for word in words:
        assert word in lines[0], lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_a_model_is_refused(fettle, tmp_path):
    refused(fettle("fit", tmp_path), "config.json")


@pytest.fixture(scope="module")
def small(fettle, scores, tmp_path_factory):
    """The bundled model trimmed by half and quantized in two ways."""
    out = tmp_path_factory.mktemp("small")
    done = fettle("trim", MODEL, "--scores", scores, "--keep", 0.5, "--repair",
                  "none", "--out", out / "trimmed", "--quiet")
    assert done.status == 0, done.err
    folders = {}
    for scheme in ("int4", "ternary"):
        folder = folders[scheme] = out / scheme
        done = fettle("quant", out / "trimmed", "--bits", scheme, "--zeros",
                      "no", "--out", folder, "--quiet")
        assert done.status == 0, done.err
    return folders


def tokens(fettle, prompt):
    """Tokens of a prompt, by the refusal of more than the model has."""
    done = fettle("generate", MODEL, "--prompt", prompt,
                  "--max-new-tokens", 10**9)
    return int(re.search(r"(\d+) prompt tokens", done.err)[1])


@pytest.mark.parametrize("scheme", ["stored", "int4", "ternary"])
def test_a_run_takes_what_was_promised(fettle, small, scheme):
    """Promised of the whole model, before it is trimmed and quantized."""
    whole = scheme == "stored"
    context = 1000
    new = 20
    table = fit(fettle, MODEL, "--ram", "1GiB", "--context", context)
    promised = row(table, 1.0 if whole else 0.5, scheme)["total_bytes"]
    each = tokens(fettle, PROMPT * 10) - tokens(fettle, PROMPT * 9)
    prompt = PROMPT * ((context - new) // each)
    done = fettle("generate", MODEL if whole else small[scheme], "--prompt",
                  prompt, "--max-new-tokens", new, "--ram", f"{promised}B",
                  "--json", "-")
    assert done.status == 0, done.err
    taken = json.loads(done.out)["peak_ram_bytes"]
    assert LEAST_SHARE * promised <= taken <= promised, taken / promised
