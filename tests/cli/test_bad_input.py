# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with the input: one clear line, exit status 1, and nothing
that could be taken for a result."""

import json
import re
import struct
import subprocess

import pytest
from conftest import HELD, MODEL
from safetensors.torch import load_file, save_file


def refused(result, *words):
    assert result.status == 1, (result.status, result.err)
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("fettle: [")
    for word in words:
        assert word in lines[0], lines[0]


def read_header(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def write_header(path, header, body, size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", size or len(text)) + text + body)


def weights(model):
    return model / "model.safetensors"


def truncate(model):
    data = weights(model).read_bytes()
    weights(model).write_bytes(data[:len(data) // 2])


def overlap(model):
    header, body = read_header(weights(model))
    same = sorted(k for k in header if k.endswith(".gate_proj.weight"))
    header[same[1]]["data_offsets"] = header[same[0]]["data_offsets"]
    write_header(weights(model), header, body)


def past_the_end(model):
    header, body = read_header(weights(model))
    name = max((k for k in header if k != "__metadata__"),
               key=lambda k: header[k]["data_offsets"][1])
    header[name]["data_offsets"][1] += 4096
    write_header(weights(model), header, body)


def huge_header(model):
    header, body = read_header(weights(model))
    write_header(weights(model), header, body, size=2**63)


def duplicate_key(model):
    header, body = read_header(weights(model))
    text = json.dumps(header)
    name = next(k for k in header if k != "__metadata__")
    entry = json.dumps({name: header[name]})[1:-1]
    write_header(weights(model), (text[:-1] + ", " + entry + "}").encode(), body)


def missing_file(model):
    weights(model).unlink()


def missing_tensor(model):
    header, body = read_header(weights(model))
    name = "model.layers.1.mlp.gate.weight"
    begin, end = header.pop(name)["data_offsets"]
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [o - (end - begin)
                                     for o in entry["data_offsets"]]
    write_header(weights(model), header, body[:begin] + body[end:])


def wrong_shape(model):
    header, body = read_header(weights(model))
    entry = header["model.layers.0.mlp.gate.weight"]
    entry["shape"] = entry["shape"][::-1]
    write_header(weights(model), header, body)


def wrong_dtype(model):
    header, body = read_header(weights(model))
    header["model.layers.0.mlp.gate.weight"]["dtype"] = "I16"
    write_header(weights(model), header, body)


def nan_weight(model):
    header, body = read_header(weights(model))
    begin = header["model.layers.2.self_attn.q_proj.weight"]["data_offsets"][0]
    body = body[:begin] + b"\xc0\x7f" + body[begin + 2:]
    write_header(weights(model), header, body)


def config(change):
    def damage(model):
        path = model / "config.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return damage


def broken_config(model):
    (model / "config.json").write_text('{"model_type": ')


def deep_config(model):
    (model / "config.json").write_text("[" * 10000 + "]" * 10000)


@pytest.mark.parametrize("damage, word", [
    (truncate, "ncomplete"),
    (overlap, "overlap"),
    (past_the_end, ""),
    (huge_header, "header"),
    (duplicate_key, "duplicate"),
    (missing_file, "model.safetensors"),
    (missing_tensor, "model.layers.1.mlp.gate.weight"),
    (wrong_shape, "model.layers.0.mlp.gate.weight"),
    (wrong_dtype, "model.layers.0.mlp.gate.weight"),
    (nan_weight, "model.layers.2.self_attn.q_proj.weight"),
    (broken_config, "config.json"),
    (deep_config, "nested deeper"),
    (config(lambda c: c.update(model_type="llama9")), "llama9"),
    (config(lambda c: c.update(num_hidden_layers=10**12)), "num_hidden_layers"),
    (config(lambda c: c.update(hidden_act="relu9")), "relu9"),
], ids=lambda value: getattr(value, "__name__", str(value)))
def test_damaged_model(fettle, model, damage, word):
    damage(model)
    refused(fettle("eval", model, "--data", HELD, "--quiet"), word)


def put_nan(model, name):
    """Amid a weight, where a model's fingerprint doesn't look."""
    header, body = read_header(weights(model))
    begin, end = header[name]["data_offsets"]
    middle = begin + (end - begin) // 4 * 2
    body = body[:middle] + b"\xc0\x7f" + body[middle + 2:]
    write_header(weights(model), header, body)


CALIBRATE = ("--data", HELD, "--tokens", 1024, "--seq-len", 128)
LAST = "model.layers.3.mlp.experts.9.down_proj.weight"
ROUTER = "model.layers.3.mlp.gate.weight"
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.mark.parametrize("name, arguments", [
    (LAST, ("quant", *CALIBRATE)),
    (LAST, ("quant", *CALIBRATE, "--budget", "2MiB")),
    (LAST, ("quant", "--method", "rtn")),
    (ROUTER, ("quant", "--method", "rtn")),  # kept as it is
    (LAST, ("analyze", *CALIBRATE, "--scores", "heapr", "--chunk-tokens", 256)),
    (EMBEDDINGS, ("trim", "--scores", "SCORES", "--keep", 0.5)),
    (LAST, ("tune", "--data", HELD, "--steps", 1, "--tokens-per-step", 128,
            "--seq-len", 128)),
    (EMBEDDINGS, ("merge", "--adapter", "ADAPTER")),
    (LAST, ("export", "--format", "hf")),
    (LAST, ("export", "--format", "gguf")),
], ids=lambda value: value[0] if isinstance(value, tuple) else value)
def test_nan_weights_leave_nothing(
        fettle, model, scores, tmp_path, name, arguments):
    if "ADAPTER" in arguments:
        assert fettle("tune", model, "--data", HELD, "--steps", 1,
                      "--tokens-per-step", 128, "--seq-len", 128, "--out",
                      tmp_path / "adapter", "--quiet").status == 0
    put_nan(model, name)
    command, *options = (
        {"SCORES": scores, "ADAPTER": tmp_path / "adapter"}.get(one, one)
        for one in arguments)
    before = set(tmp_path.iterdir())
    refused(fettle(command, model, *options, "--out", tmp_path / "out",
                   "--quiet"), name)
    assert set(tmp_path.iterdir()) == before


def test_weights_that_no_run_can_quantize_leave_nothing(
        fettle, model, tmp_path):
    """They are finite, and what they compute in the last layer is not."""
    tensors = load_file(weights(model))
    for kind in ("gate", "up"):
        tensors[f"model.layers.3.mlp.experts.9.{kind}_proj.weight"] *= 1e25
    save_file(tensors, weights(model), {"format": "pt"})
    refused(fettle("quant", model, *CALIBRATE, "--out", tmp_path / "out",
                   "--quiet"), "check the model's weights")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("text, word", [
    ("", "held.jsonl"),
    ("not json\n", "held.jsonl:1"),
    ('{"text": "a b c"}\n{"words": 1}\n', "held.jsonl:2"),
    ('{"input_ids": [1, 2, 99999999]}\n', "99999999"),
    ('{"input_ids": [1, -2, 3]}\n', "-2"),
    ('{"text": "' + '"[' * 3 + "\n", "held.jsonl:1"),
])
def test_bad_data(fettle, tmp_path, text, word):
    data = tmp_path / "held.jsonl"
    data.write_text(text)
    refused(fettle("eval", MODEL, "--data", data, "--quiet"), word)


def test_output_that_exists(fettle, scores, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    for arguments in (
            ("analyze", MODEL, "--data", HELD, "--tokens", 256),
            ("trim", MODEL, "--scores", scores, "--keep", 0.5),
            ("export", MODEL, "--format", "hf")):
        refused(fettle(*arguments, "--out", out, "--quiet"), str(out))
    assert (out / "precious").read_text() == "mine"
    assert list(out.iterdir()) == [out / "precious"]


def test_scores_of_another_model(fettle, scores, model, tmp_path):
    header, body = read_header(weights(model))
    write_header(weights(model), header, body[:-2] + b"\x00\x3c")
    refused(fettle("trim", model, "--scores", scores, "--keep", 0.5, "--out",
                   tmp_path / "out", "--quiet"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", ["0", "1.5", "-1"])
def test_keep_out_of_range(fettle, scores, tmp_path, keep):
    refused(fettle("trim", MODEL, "--scores", scores, "--keep", keep, "--out",
                   tmp_path / "out", "--quiet"))
    assert not (tmp_path / "out").exists()


def test_budget_too_small(fettle, scores, tmp_path):
    result = fettle("eval", MODEL, "--data", HELD, "--ram", "1MiB", "--quiet")
    refused(result, "--ram", "smallest")
    repair = ("trim", MODEL, "--scores", scores, "--keep", 0.5, "--repair",
              "ridge", "--data", HELD, "--out", tmp_path / "out", "--quiet")
    refused(fettle(*repair, "--ram", "100MiB"), "--ram", "smallest")
    assert not (tmp_path / "out").exists()


def test_the_smallest_budget_told_is_one(fettle):
    def evaluate(ram):
        return fettle("eval", MODEL, "--data", HELD, "--ram", ram, "--quiet")

    result = evaluate("1MiB")
    refused(result, "1.00 MiB is too little")
    least = int(re.search(r"smallest that works is (\d+)MiB", result.err)[1])
    refused(evaluate(f"{least - 1}MiB"), f"{least - 1} MiB is too little")
    assert evaluate(f"{least}MiB").status == 0


def test_repair_and_data_belong_together(fettle, scores, tmp_path):
    trim = ("trim", MODEL, "--scores", scores, "--keep", 0.5, "--out",
            tmp_path / "out", "--quiet")
    alone = fettle(*trim, "--repair", "ridge")
    assert alone.status == 2 and "need calibration data" in alone.err
    merge = fettle(*trim, "--merge", "m_smoe", "--data", HELD)
    assert merge.status == 2 and "--unit expert" in merge.err
    unread = fettle(*trim, "--repair", "none", "--data", HELD)
    assert unread.status == 2 and "only repair ridge and joint" in unread.err
    assert not (tmp_path / "out").exists()


def test_disk_full(fettle, tmp_path):
    """A full disk is a file size limit here: the kernel refuses the write."""
    out = tmp_path / "out"
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1024; trap "" XFSZ; exec "$@"', "-",
         fettle.__closure__[0].cell_contents, "export", MODEL, "--format", "hf",
         "--dtype", "float32", "--out", out, "--quiet"],
        capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("fettle: ["), done.stderr
    assert not out.exists()


def test_usage(fettle):
    result = fettle("evla", MODEL)
    assert result.status == 2 and "did you mean 'eval'" in result.err
    assert fettle("eval").status == 2
    assert fettle("eval", MODEL, "--data", HELD, "--ram", "lots").status == 2
    assert fettle("eval", MODEL, "--data", HELD, "--device", "tpu").status == 2
    assert fettle("--help").status == 0
    for command in ("inspect", "eval", "generate", "analyze", "trim", "tune",
                    "merge", "export", "run"):
        result = fettle(command, "--help")
        assert result.status == 0 and "--device" in result.out
