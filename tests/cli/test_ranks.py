# SPDX-License-Identifier: Apache-2.0
"""One command on several processes, as torchrun starts it."""

import json
import os
import shutil
import socket
import subprocess
import time

import pytest
from conftest import HELD, MODEL, TRAIN, Result

EVAL = ("eval", MODEL, "--data", HELD, "--seq-len", 96, "--threads", 1)
ANALYZE = ("analyze", MODEL, "--data", TRAIN, "--seq-len", 96, "--threads", 1,
           "--shards", 4)
FILES = ("scores.safetensors", "scores.json")
LOST = 4


@pytest.fixture
def ranks(program, tmp_path):
    """Starts ranks of a command; each has a folder of its own as TMPDIR."""
    started = []

    def start(size, *arguments, different=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(size):
            own = (different or {}).get(rank, {})
            variables = {
                **os.environ, "RANK": str(rank), "WORLD_SIZE": str(size),
                "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
                "TORCHELASTIC_ERROR_FILE": str(tmp_path / f"error-{rank}")}
            started.append(subprocess.Popen(
                [str(a) for a in (program, *own.get("arguments", arguments))],
                env=variables, cwd=own.get("cwd"), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-size:]

    yield start
    for process in started:
        process.kill()
        process.wait()


def ended(processes):
    results = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        results.append(Result(process.returncode, out, err))
    return results


def succeeded(processes):
    results = ended(processes)
    assert [r.status for r in results] == [0] * len(results), results
    assert not any(r.out or r.err for r in results[1:]), results
    return results[0]


def wait_for(out, pattern, processes):
    partial = out.with_name(out.name + ".partial")
    while not any(partial.glob(pattern)):
        time.sleep(0.005)
        assert processes[0].poll() is None, ended(processes)


def same_files(names, folder, other):
    for name in names:
        assert (folder / name).read_bytes() == (
            other / name).read_bytes(), (folder, name)


def test_eval_gives_the_same_bits_on_any_number_of_ranks(
        fettle, ranks, tmp_path):
    short = []
    for name, lines in ((HELD, 25), (TRAIN, 40)):
        short += ["--data", tmp_path / name.name]
        short[-1].write_text("".join(
            name.open().readlines()[:lines]))
    evaluation = (*EVAL[:2], *EVAL[4:], *short, "--against", MODEL,
                  "--tokens-per-sweep", 1500)

    def losses(result):
        return {key: result[key] for key in ("files", "all", "mean_nll")}

    plain = json.loads(fettle(*evaluation, "--json", "-").out)
    shards = (*evaluation, "--shards", 4, "--json", "-")
    alone = json.loads(fettle(*shards).out)
    assert "ranks" not in alone
    for a, b in zip(plain["files"], alone["files"], strict=True):
        assert a["tokens"] == b["tokens"]
        assert abs(a["nll"] - b["nll"]) < 1e-6
    for size in (2, 4):
        divided = json.loads(succeeded(ranks(size, *shards)).out)
        assert losses(divided) == losses(alone)
        assert len(divided["ranks"]) == size
        assert all(r["peak_ram_bytes"] > 1 << 20 for r in divided["ranks"])
        assert divided["shards"] == 4


def questions(path, count, answered):
    texts = [json.loads(line)["text"] for line in TRAIN.open()]
    rows = []
    for i, text in enumerate(texts[:count]):
        words = text.split()
        row = {"prompt": " ".join(words[:5 + i % 7]), "completion": words[-1]}
        rows.append(row if answered else {
            "context": row["prompt"], "choices": words[-4:], "answer": i % 4})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_questions_have_the_same_answers_on_any_number_of_ranks(
        fettle, ranks, tmp_path):
    choices = questions(tmp_path / "choices.jsonl", 23, answered=False)
    asked = questions(tmp_path / "asked.jsonl", 9, answered=True)
    for name, arguments in (
            ("choices", ("--choices", choices, "--tokens-per-sweep", 200,
                         "--shards", 4)),
            ("generate", ("--generate", asked, "--max-new-tokens", 6,
                          "--parallel", 2))):
        def answers(size):
            rows = tmp_path / f"{name}-{size}.jsonl"
            run = ("eval", MODEL, *arguments, "--threads", 1, "--rows", rows,
                   "--json", "-", "--quiet")
            result = fettle(*run) if size == 1 else succeeded(ranks(size, *run))
            found = json.loads(result.out)[name]
            return found["files"], found["all"], rows.read_bytes()

        alone = answers(1)
        assert len(alone[2].splitlines()) in (23, 9)
        for size in (2, 4):
            assert answers(size) == alone, name


def test_rank_0_alone_does_what_is_not_divided(fettle, ranks, tmp_path):
    scores, more = tmp_path / "scores", tmp_path / "more"
    for data, out in ((TRAIN, scores), (HELD, more)):
        analyze = ("analyze", MODEL, "--scores", "magnitude,frequency",
                   "--data", data, "--tokens", 500, "--quiet", "--out", out)
        assert fettle(*analyze).status == 0
    held = tmp_path / HELD.name
    held.write_text("".join(HELD.open().readlines()[:5]))
    for name, arguments in (
            ("trim", ("trim", MODEL, "--scores", scores, "--score", "magnitude",
                      "--keep", 0.5, "--eval-data", held)),
            ("quant", ("quant", MODEL, "--bits", "int4")),
            ("merge", ("analyze", "--merge", scores, more))):
        arguments = (*arguments, "--quiet", "--out")
        alone, out = tmp_path / f"{name}-1", tmp_path / f"{name}-2"
        assert fettle(*arguments, alone).status == 0
        succeeded(ranks(2, *arguments, out))
        names = sorted(p.name for p in alone.glob("*.safetensors"))
        assert names == sorted(p.name for p in out.glob("*.safetensors"))
        same_files(names, out, alone)


def test_analyze_gives_the_same_files_on_any_number_of_ranks(
        fettle, ranks, tmp_path):
    scores = ("obs,mask_fisher,weight_fisher,grad_abs,heapr,camera,wanda,"
              "magnitude,random,reap,frequency,gate_mass,expert_fisher")
    arguments = (*ANALYZE, "--scores", scores, "--tokens", 1500,
                 "--batch-sequences", 3, "--by-file", "--out")
    assert fettle(*arguments, tmp_path / "1").status == 0
    for size in (2, 4):
        out = tmp_path / str(size)
        first = succeeded(ranks(size, *arguments, out, "--quiet"))
        assert "scores in" in first.out and not first.err
        same_files(FILES, out, tmp_path / "1")


TUNE = ("tune", MODEL, "--seq-len", 96, "--tokens-per-step", 672, "--threads", 1,
        "--shards", 4, "--data", TRAIN, "--quiet")
ADAPTER = ("adapter.safetensors", "adapter.json")


def test_tune_gives_the_same_adapter_on_any_number_of_ranks(
        fettle, ranks, tmp_path):
    held = tmp_path / HELD.name
    held.write_text("".join(HELD.open().readlines()[:10]))
    arguments = (*TUNE, "--steps", 4, "--method", "usaf", "--frac", 0.02,
                 "--score-sequences", 4, "--reselect-every", 2, "--router",
                 "gumbel", "--rest-below", 0.1, "--eval-data", held, "--out")
    alone = fettle(*arguments, tmp_path / "1")
    assert alone.status == 0, alone.err
    for size in (2, 4):
        out = tmp_path / str(size)
        first = succeeded(ranks(size, *arguments, out))
        assert "4 steps" in first.out
        same_files(ADAPTER, out, tmp_path / "1")


def test_a_killed_tune_resumes_on_another_number_of_ranks(
        fettle, ranks, tmp_path):
    arguments = (*TUNE, "--method", "full", "--steps", 6, "--save-every", 1,
                 "--teacher", MODEL, "--kd-weight", 0.5, "--out")
    assert fettle(*arguments, tmp_path / "whole").status == 0
    out = tmp_path / "killed"
    processes = ranks(2, *arguments, out)
    wait_for(out, "state-*[2-9]", processes)
    processes[1].kill()
    assert ended(processes)[0].status == LOST
    succeeded(ranks(4, *arguments, out, "--resume"))
    same_files((*ADAPTER, "weights.safetensors"), out, tmp_path / "whole")


CALIBRATED = ("--data", TRAIN, "--seq-len", 96, "--tokens", 1500, "--threads", 1,
              "--shards", 4, "--quiet", "--out")


def test_trim_fits_the_same_weights_on_any_number_of_ranks(
        fettle, ranks, tmp_path):
    scores = tmp_path / "scores"
    assert fettle("analyze", MODEL, "--scores", "magnitude", "--quiet", "--out",
                  scores).status == 0
    for size, repair in ((4, "ridge+constant"), (2, "joint")):
        arguments = ("trim", MODEL, "--scores", scores, "--keep", 0.6, "--repair",
                     repair, *CALIBRATED)
        alone, out = tmp_path / repair, tmp_path / str(size)
        assert fettle(*arguments, alone).status == 0
        first = succeeded(ranks(size, *arguments, out))
        assert repair in first.out
        models = [p.name for p in alone.glob("*.safetensors")]
        assert models
        same_files((*models, "trim_plan.json", "fettle.json"), out, alone)


def test_a_killed_quant_resumes_on_another_number_of_ranks(
        fettle, ranks, tmp_path):
    arguments = ("quant", MODEL, "--bits", "int2", "--embeddings", "int8",
                 "--moments", "200KiB", *CALIBRATED)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert fettle(*arguments, whole).status == 0
    processes = ranks(2, *arguments, out)
    wait_for(out, "packed-00003*", processes)
    processes[1].kill()
    assert ended(processes)[0].status == LOST
    succeeded(ranks(4, *arguments, out, "--resume"))
    models = [p.name for p in whole.glob("*.safetensors")]
    assert len(models) > 4
    same_files((*models, "quant_report.json", "fettle.json"), out, whole)


def test_a_killed_rank_is_named_and_fewer_ranks_resume(
        fettle, ranks, tmp_path):
    arguments = (*ANALYZE, "--scores", "obs,heapr,camera", "--keep-moments",
                 "--tokens", 3000, "--chunk-tokens", 300, "--quiet", "--out")
    out = tmp_path / "killed"
    processes = ranks(4, *arguments, out)
    wait_for(out, "state-*", processes)
    processes[2].kill()
    begin = time.monotonic()
    results = ended(processes)
    assert time.monotonic() - begin < 15
    assert not out.exists()
    for rank in (0, 1, 3):
        assert results[rank].status == LOST, results
        message = results[rank].err.strip()
        assert message.startswith(
            f"fettle: rank {rank}: [ranks] rank 2 ended"), results
        assert "--resume" in message and "\n" not in message
        error = json.loads((tmp_path / f"error-{rank}").read_text())
        assert error["message"]["message"] in message

    succeeded(ranks(2, *arguments, out, "--resume"))
    assert fettle(*arguments, tmp_path / "whole").status == 0
    same_files(FILES, out, tmp_path / "whole")


def test_a_rank_that_differs_is_named(ranks, tmp_path):
    results = ended(ranks(2, *EVAL, different={
        1: {"arguments": (*EVAL, "--seed", 2)}}))
    for result in results:
        assert result.status == 1
        assert "[ranks] rank 1: the command line" in result.err, results

    other = shutil.copytree(MODEL, tmp_path / "there" / "model")
    shutil.copytree(MODEL, tmp_path / "here" / "model")
    tensors = other / "model.safetensors"
    damaged = bytearray(tensors.read_bytes())
    damaged[-1] ^= 1
    tensors.write_bytes(damaged)
    relative = ("eval", "model", "--data", HELD, "--threads", 1)
    for there, named in ((tmp_path / "there", "rank 1: the model"),
                         (tmp_path, "rank 1 ended: ")):
        results = ended(ranks(2, *relative, different={
            0: {"cwd": tmp_path / "here"}, 1: {"cwd": there}}))
        assert named in results[0].err, results
        assert 0 not in [r.status for r in results], results


def test_what_ranks_can_not_do_is_refused(fettle, ranks, tmp_path):
    out = tmp_path / "out"
    cases = [
        (("export", MODEL, "--out", out, "--format", "gguf"),
         "[ranks] export: is a"),
        (("quant", MODEL, "--out", out, "--budget", "1MiB", "--data", TRAIN),
         "[ranks] --budget with --data"),
        ((*EVAL, "--shards", 1), "[ranks] --shards: expected at least the 2"),
        ((*ANALYZE, "--out", out, "--prices"), "[ranks] --prices: is for one"),
    ]
    for arguments, message in cases:
        for result in ended(ranks(2, *arguments)):
            assert result.status == 2 and message in result.err, result
    assert not out.exists()
    refused = fettle(*ANALYZE, "--out", out, "--prices")
    assert refused.status == 2 and "--prices" in refused.err
