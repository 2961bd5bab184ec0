# SPDX-License-Identifier: Apache-2.0
"""The program among others: signals, closed streams, full pipes, limits of
memory, odd environments, and neighbours that want the same cores."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest
from conftest import HELD, MODEL, TRAIN

EVAL = ("eval", MODEL, "--data", HELD, "--quiet")


def one_line(result, status, *words):
    assert result.status == status, (result.status, result.err)
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert result.err.startswith("fettle: ["), result.err
    for word in words:
        assert word in result.err, result.err


def in_shell(program, script, *arguments, **options):
    return subprocess.run(
        ["bash", "-c", script, "-", program, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, **options)


# Streams.


def test_closed_streams_leave_files_whole(program, tmp_path):
    for name, closing in (("open", ""), ("closed", "0<&- 1>&- 2>&-")):
        done = in_shell(program, f'exec "$@" {closing}', "export", MODEL,
                        "--format", "hf", "--out", tmp_path / name)
        assert done.returncode == 0
    written = [(tmp_path / name / "model.safetensors").read_bytes()
               for name in ("open", "closed")]
    assert written[0] == written[1]


@pytest.mark.parametrize("arguments", [
    ("--version",), ("--help",), EVAL, (*EVAL, "--json", "-"),
    ("generate", MODEL, "--prompt", "The", "--max-new-tokens", 4, "--quiet")],
    ids=["version", "help", "text", "json", "tokens"])
def test_a_full_pipe_is_a_failure(program, arguments):
    done = in_shell(program, 'exec "$@" >/dev/full', *arguments)
    assert done.returncode == 1, done.stderr
    assert "standard output" in done.stderr


# The environment.


@pytest.mark.parametrize("folder", ["", "/nowhere/at/all", "/dev/null"])
def test_a_bad_tmpdir_matters_to_nobody_who_needs_none(fettle, folder):
    environment = {**os.environ, "TMPDIR": folder}
    assert fettle("--version", env=environment).status == 0
    assert fettle(*EVAL, env=environment).status == 0


def test_names_that_are_not_utf8_are_refused_before_work(program, tmp_path):
    data = bytes(tmp_path) + b"/held\xff.jsonl"
    pathlib.Path(os.fsdecode(data)).write_text("")
    done = subprocess.run(
        [os.fsencode(program), b"eval", os.fsencode(MODEL), b"--data", data],
        capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"is not UTF-8" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_one_line(fettle, tmp_path):
    (tmp_path / "file").write_text("")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {MODEL}\nout: {tmp_path}/file/work\n"
                      f"data: {{calibration: [{HELD}]}}\n"
                      "stages:\n  - analyze: {tokens: 256}\n")
    one_line(fettle("run", recipe, "--quiet"), 1, "file")


# Values of options.


@pytest.mark.parametrize("arguments, words", [
    (("--ram", "12"), ("--ram", "unit", "12GiB")),
    (("--ram", "12 parsecs"), ("--ram", "12GiB")),
    (("--vram", "6GiB"), ("--vram", "--device cuda")),
    (("--threads", "100000"), ("--threads",)),
], ids=["no-unit", "other-unit", "no-card", "threads"])
def test_common_options(fettle, arguments, words):
    one_line(fettle(*EVAL, *arguments), 2, *words)


def test_sizes_as_other_tools_write_them(fettle):
    for size in ("12 gib", "12GB"):
        assert fettle(*EVAL, "--ram", size).status == 0, size


@pytest.mark.parametrize("value", ["nan", "-inf", "1" * 600])
def test_numbers_that_no_option_can_mean(fettle, tmp_path, value):
    out = ("--out", tmp_path / "out", "--quiet")
    for arguments in (
            ("tune", MODEL, "--data", TRAIN, "--lr", value, *out),
            ("tune", MODEL, "--data", TRAIN, "--steps", value, *out),
            ("trim", MODEL, "--scores", tmp_path, "--keep", "0.5",
             "--exchange-rate", value, *out)):
        result = fettle(*arguments)
        assert result.status in (1, 2), (arguments, result.err)
        assert len(result.err.strip().splitlines()) == 1, result.err
        assert len(result.err) < 400 + len(str(tmp_path)), result.err
    assert not list(tmp_path.iterdir())


# Memory.


@pytest.mark.parametrize("ram", [(), ("--ram", "64GiB"), ("--ram", "300MiB")],
                         ids=lambda ram: "".join(ram) or "default")
def test_limits_of_the_shell(program, ram):
    """Allowed or not, it never ends for want of memory on the way. Below 450 MiB,
    memory ends while libtorch's libraries are loaded."""
    statuses = set()
    for mebibytes in (1800, 1200, 840, 660, 480):
        done = in_shell(program, f'ulimit -v {mebibytes << 10}; exec "$@"',
                        *EVAL, *ram, "--threads", 2)
        statuses.add(done.returncode)
        if done.returncode == 0:
            continue
        assert done.returncode == 1, (mebibytes, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "ulimit" in done.stderr or "--ram" in done.stderr, done.stderr
    assert statuses == ({1} if "64GiB" in ram else {0, 1})


@pytest.mark.parametrize("command", [
    ("inspect", MODEL),
    ("export", MODEL, "--format", "hf", "--out", "{}"),
    ("quant", MODEL, "--bits", "int4", "--method", "rtn", "--out", "{}"),
    ("trim", MODEL, "--scores", "{scores}", "--keep", 0.5, "--repair", "none",
     "--out", "{}"),
], ids=lambda c: c[0])
def test_commands_without_a_plan_keep_to_a_budget(
        fettle, scores, tmp_path, command):
    filled = [str(word).replace("{}", str(tmp_path / "out"))
              .replace("{scores}", str(scores)) for word in command]
    one_line(fettle(*filled, "--quiet", "--ram", "100MiB"), 1, "--ram",
             "smallest")
    assert not list(tmp_path.iterdir())
    done = fettle(*filled, "--quiet", "--ram", "300MiB", "--json", "-")
    assert done.status == 0, done.err
    assert json.loads(done.out)["peak_ram_bytes"] <= 300 << 20


# Signals.


class Running:
    """A command that is signalled once a line of its progress has come."""

    def __init__(self, program, arguments, word):
        self.process = subprocess.Popen(
            [program, *map(str, arguments)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        self.told = ""
        for line in self.process.stderr:
            self.told += line
            if word in line:
                break

    def stop(self, number):
        self.process.send_signal(number)
        begin = time.monotonic()
        _, told = self.process.communicate(timeout=120)
        self.told += told
        return self.process.returncode, time.monotonic() - begin


LONG = [str(TRAIN)] * 40
TUNE = ("tune", MODEL, "--data", TRAIN, "--steps", 100000, "--seq-len", 128,
        "--tokens-per-step", 256, "--eval-every", 0)


def stop_tune(program, out, number, lines, *arguments):
    """Signals tune when its metrics have so many lines; status, stderr."""
    process = subprocess.Popen(
        [program, *map(str, (*TUNE, "--quiet", "--out", out, *arguments))],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = out.with_suffix(".partial") / "metrics.jsonl"
    for _ in range(6000):
        if metrics.exists() and metrics.read_text().count("\n") >= lines:
            break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    return process.returncode, told


@pytest.mark.parametrize("number, status", [
    (signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"])
def test_a_stopped_tune_saves_its_state(program, tmp_path, number, status):
    found, told = stop_tune(program, tmp_path / "out", number, 1)
    assert found == status, told
    assert "once more ends at once" in told
    assert not (tmp_path / "out").exists()
    states = [p for p in (tmp_path / "out.partial").iterdir()
              if p.name.startswith("state-")]
    assert len(states) == 1


def test_the_first_evaluation_can_be_stopped(program, tmp_path):
    status, told = stop_tune(program, tmp_path / "out", signal.SIGINT, 0,
                             "--eval-data", *LONG)
    assert status == 130, told
    assert (tmp_path / "out.partial" / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("command", [
    ("eval", MODEL, "--data", *LONG, "--ram", "4GiB"),
    ("analyze", MODEL, "--data", TRAIN, "--ram", "4GiB", "--out", "{}",
     "--scores", "mask_fisher,heapr", "--tokens", 0),
], ids=lambda c: c[0])
def test_others_end_at_once(program, tmp_path, command):
    filled = [str(word).replace("{}", str(tmp_path / "out"))
              for word in command]
    running = Running(program, filled, "plan:")
    status, seconds = running.stop(signal.SIGINT)
    assert status == 130, running.told
    assert running.told.endswith("fettle: stopped\n")
    assert seconds < 20


# Neighbours.


def processor_seconds(program, threads, environment):
    """Of generate: what waiting threads spin away counts too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [program, "generate", MODEL, "--prompt", "The", "--max-new-tokens",
         "100", "--threads", str(threads), "--quiet"],
        check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, **environment})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime
            - before.ru_stime)


def test_waiting_costs_no_processor_time_beside_neighbours(program):
    environment = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "3000000000"}
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
                  for _ in range(4)]
    try:
        alone = processor_seconds(program, 1, environment)
        together = processor_seconds(program, 2, environment)
    finally:
        for process in neighbours:
            process.kill()
            process.wait()
    # Spinning, two threads took 10 times the processor time of one.
    assert together < 3 * alone + 0.5
