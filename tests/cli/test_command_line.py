# SPDX-License-Identifier: Apache-2.0
"""The command line: what it refuses before any work, and what it says."""

import shlex
import subprocess

import pytest
from conftest import HELD, MODEL

# Each would read a model for a while, if it got so far.
WRITING = {
    "analyze": ("--data", HELD),
    "trim": ("--scores", MODEL, "--keep", 0.5),
    "quant": ("--bits", "int4"),
    "tune": ("--data", HELD),
    "merge": ("--adapter", MODEL),
    "export": (),
}


@pytest.mark.parametrize("command", WRITING)
def test_a_bad_out_is_refused_before_any_work(fettle, tmp_path, command):
    run = (command, tmp_path / "no_model", *WRITING[command], "--out")
    empty = fettle(*run, "")
    assert empty.status == 2 and "--out: expected" in empty.err
    there = fettle(*run, tmp_path)
    assert there.status == 1 and "exists already" in there.err
    (tmp_path / "file").write_text("x")
    below = fettle(*run, tmp_path / "file" / "out")
    assert below.status == 1 and "is not a folder" in below.err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_other_targets_are_judged_as_early(fettle, tmp_path):
    scored = ("eval", tmp_path / "no_model", "--data", HELD, "--json")
    assert "--json: expected" in fettle(*scored, "").err
    assert "is a folder" in fettle(*scored, tmp_path).err
    assert "there is no folder" in fettle(*scored, tmp_path / "a" / "b").err
    tune = ("tune", tmp_path / "no_model", "--data", HELD, "--method", "lora",
            "--out", tmp_path / "out")
    for option in ("--merge", "--peft"):
        refused = fettle(*tune, option, tmp_path)
        assert refused.status == 1 and option in refused.err
        same = fettle(*tune, option, tmp_path / "out")
        assert same.status == 2 and "the same folder as --out" in same.err
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_there_are_told_at_once(fettle, tmp_path):
    none = tmp_path / "none"
    for run in (
            ("eval", none, "--data", none),
            ("eval", none, "--data", HELD, "--against", none),
            ("analyze", none, "--data", none, "--out", tmp_path / "out"),
            ("quant", none, "--plan", none, "--out", tmp_path / "out"),
            ("tune", none, "--data", HELD, "--teacher", none, "--out",
             tmp_path / "out")):
        refused = fettle(*run)
        assert refused.status == 1 and "there is no such" in refused.err
        assert str(none) in refused.err
    assert not list(tmp_path.iterdir())


COMMANDS = ("inspect", "fit", "eval", "generate", "chat", "serve", "analyze", "trim",
            "quant", "tune", "merge", "export", "run", "help", "completion")


def test_the_program_alone_prints_help(fettle):
    alone = fettle()
    assert alone.status == 2 and alone.err == ""
    for asked in (fettle("--help"), fettle("help")):
        assert asked.status == 0 and asked.out == alone.out
    for command in COMMANDS:
        assert f"\n  {command} " in alone.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(fettle, command):
    asked = fettle("help", command)
    assert asked.status == 0 and asked.err == ""
    assert asked.out == fettle(command, "--help").out
    lines = asked.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith((".", ",")) or len(lines[0]) > 60
    assert f"Usage: fettle {command}" in asked.out
    assert "\nExamples:\n  fettle " in asked.out
    # An option that no group took in.
    assert command in ("inspect", "eval", "generate", "run", "merge") or (
        "\nOptions:" not in asked.out)


def test_help_tells_values_defaults_methods_and_data(fettle):
    trim = fettle("help", "trim").out
    assert "--scope NAME" in trim and "expert|global|layer" in trim
    assert "default: 262144" in trim and '{"messages": ' in trim
    tune = fettle("help", "tune").out
    for method in ("usaf", "smt", "esft", "full", "lora", "condenser",
                   "router_kd"):
        assert f"\n  {method} " in tune
    assert "Of lora:\n  --lora-targets TEXT" in tune


def test_the_version_tells_the_build(fettle):
    told = fettle("--version").out.splitlines()
    assert told[0].startswith("fettle ") and "libtorch 2." in told[1]
    assert told[2].startswith("CPU: ") and told[3].startswith("GPU: ")


@pytest.mark.parametrize("line, text", [
    (("trim", MODEL, "--kep", 0.5, "--out", "o"),
     "--kep: is no option of trim: did you mean --keep?; see fettle trim "
     "--help"),
    (("trim", MODEL, "--keep", "half", "--out", "o"),
     "--keep: expected a number, found 'half'"),
    (("trim", MODEL, "--scope", "globl", "--out", "o"),
     "found 'globl': did you mean global?"),
    (("eval",), "MODEL: is missing"),
    (("eval", MODEL, MODEL, "--data", HELD), "is more than eval takes"),
    (("generate", MODEL, "--prompt"), "--prompt: expected a value behind it"),
    (("help", "trimm"), "did you mean trim?"),
    (("completion", "tcsh"), "one of bash, zsh, fish"),
    (("trimm", MODEL), "trimm: is no command: did you mean 'trim'?"),
    (("--quiet", "eval"), "--quiet: is no option of fettle itself"),
])
def test_usage_errors_are_one_line_of_the_program_s_own(fettle, line, text):
    refused = fettle(*line)
    assert refused.status == 2 and refused.out == ""
    assert refused.err.startswith("fettle: [cli] ")
    assert refused.err.count("\n") == 1 and text in refused.err
    assert "see fettle " in refused.err


@pytest.fixture(scope="module")
def bash(fettle, tmp_path_factory):
    script = tmp_path_factory.mktemp("completion") / "fettle.bash"
    script.write_text(fettle("completion", "bash").out)

    def completed(*words, folder="/"):
        """What bash offers behind these words, the last being typed."""
        done = subprocess.run(
            ["bash", "--norc", "-c",
             'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
             '_fettle; printf "%s\\n" "${COMPREPLY[@]}"', "-", script,
             "fettle", *words],
            capture_output=True, text=True, check=True, cwd=folder)
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1]

    return completed


def test_bash_completes_commands_options_and_values(bash, tmp_path):
    assert bash("tr") == ["trim"]
    assert bash("trim", "--sco") == ["--scores", "--score", "--scope"]
    assert bash("trim", "--scope", "g") == ["global"]
    assert bash("trim", "--scope", "=", "g") == ["global"]
    assert bash("tune", "--drop-by", "") == ["delta", "moment"]
    assert bash("trim", "--keep", "") == [""]
    assert bash("help", "ev") == ["eval"]
    (tmp_path / "a model").mkdir()
    (tmp_path / "a.jsonl").write_text("")
    assert bash("trim", "a", folder=tmp_path) == ["a model"]
    assert bash("eval", "m", "--data", "a.", folder=tmp_path) == ["a.jsonl"]
    assert bash("analyze", "m", "--out", "", folder=tmp_path) == ["a model"]


def test_other_shells_get_every_option(fettle):
    for shell, form in (("zsh", "--{}["), ("fish", " -l {} ")):
        script = fettle("completion", shell).out
        for option in ("scope", "eval-data", "keep", "json"):
            assert form.format(option) in script
        assert "expert global layer" in script


def test_commands_end_with_report_and_next(fettle, tmp_path):
    scores, trimmed = tmp_path / "scores", tmp_path / "trimmed"
    analyzed = fettle("analyze", MODEL, "--data", HELD, "--scores", "wanda",
                      "--tokens", 256, "--seq-len", 64, "--out", scores,
                      "--quiet")
    told = analyzed.out.replace("\\\n", " ")
    report, following = told.splitlines()[-2:]
    assert report == f"report: {scores}/report.html"
    words = shlex.split(following.removeprefix("next: "))
    assert words[:2] == ["fettle", "trim"] and str(scores) in words
    # What it says can be run as it stands, but for data's names.
    done = fettle(*words[1:words.index("--data")], "--out", trimmed, "--quiet")
    assert done.status == 0, done.err
    assert f"report: {trimmed}/report.html\nnext: fettle tune" in done.out
    assert (trimmed / "report.html").exists()
    inspected = fettle("inspect", trimmed).out.replace("\\\n", " ")
    assert f"\nnext: fettle analyze {trimmed} " in inspected
