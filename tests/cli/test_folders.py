# SPDX-License-Identifier: Apache-2.0
"""Model folders as other people have them: read, or named for what they are."""

import json
import os
import shutil

import pytest
import torch
from conftest import HELD, MODEL
from safetensors.torch import load_file, save_file
from test_bad_input import refused

FILE = "model.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few lines: what is compared is equal or far apart."""
    path = tmp_path_factory.mktemp("data") / "few.jsonl"
    path.write_text("".join(HELD.read_text().splitlines(keepends=True)[:4]))
    return path


def loss(fettle, model, data):
    done = fettle("eval", model, "--data", data, "--json", "-", "--quiet")
    assert done.status == 0, done.err
    return json.loads(done.out)["files"][0]["nll"]


@pytest.fixture(scope="module")
def demo_loss(fettle, data):
    return loss(fettle, MODEL, data)


def change_json(path, **changes):
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps(value))


def change_weights(model, change):
    tensors = load_file(model / FILE)
    change(tensors)
    save_file(tensors, model / FILE, {"format": "pt"})


def bare_names(model):
    tensors = load_file(model / FILE)
    save_file({name.removeprefix("model."): tensor
               for name, tensor in tensors.items()}, model / FILE)


def overlay(model):
    """The first of two shards holds another embedding, which the index leaves
    aside; both lie in a subfolder, and the index names one tensor too many."""
    tensors = load_file(model / FILE)
    (model / FILE).unlink()
    name = "model.embed_tokens.weight"
    later = {name: tensors[name]}
    tensors[name] = torch.zeros_like(tensors[name])
    (model / "weights").mkdir()
    save_file(tensors, model / "weights" / "1.safetensors")
    save_file(later, model / "weights" / "2.safetensors")
    places = {**dict.fromkeys(tensors, "weights/1.safetensors"),
              name: "weights/2.safetensors",
              "model.layers.99.gone.weight": "weights/1.safetensors"}
    (model / f"{FILE}.index.json").write_text(
        json.dumps({"metadata": None, "weight_map": places}))


def python_numbers(model):
    change_json(model / "config.json", unused=float("nan"),
                initializer_range=float("inf"))
    change_json(model / "generation_config.json", top_p=float("-inf"))


def spellings(model):
    change_json(
        model / "config.json", hidden_act="swish",
        rope_scaling={"type": "default", "finetuned": True,
                      "mrope_section": [4, 6, 6]})
    (model / "config.json").write_bytes(
        b"\xef\xbb\xbf" + (model / "config.json").read_bytes())


def leftovers(model):
    def add(tensors):
        tensors["v_head.summary.weight"] = torch.ones(1, 128)
        tensors["score.weight"] = torch.ones(2, 128)
        tensors["model.layers.0.self_attn.k_proj.k_scale"] = torch.ones(1)
        tensors["model.layers.0.self_attn.rotary_emb.cos"] = torch.ones(4)

    change_weights(model, add)


@pytest.mark.parametrize(
    "change",
    [bare_names, overlay, python_numbers, spellings, leftovers],
    ids=lambda change: change.__name__)
def test_folder_is_read(fettle, model, data, demo_loss, change):
    change(model)
    assert loss(fettle, model, data) == demo_loss


def test_leftovers_are_told_once_and_dropped(fettle, model, tmp_path):
    leftovers(model)
    done = fettle("export", model, "--format", "ragged", "--out", tmp_path / "o")
    assert done.status == 0, done.err
    assert done.err.count("left out") == 1, done.err
    assert "and 3 more tensors" in done.err
    assert set(load_file(tmp_path / "o" / FILE)) == set(load_file(MODEL / FILE))


def test_bare_names_are_written_whole(fettle, model, tmp_path):
    bare_names(model)
    done = fettle("export", model, "--format", "ragged", "--out",
                  tmp_path / "o", "--quiet")
    assert done.status == 0, done.err
    assert set(load_file(tmp_path / "o" / FILE)) == set(load_file(MODEL / FILE))


def test_numbers_that_are_used_must_be_finite(fettle, model):
    change_json(model / "config.json", rms_norm_eps=float("nan"))
    refused(fettle("inspect", model), "'rms_norm_eps' is NaN")


def test_a_cache_folder_is_its_snapshot(fettle, model, data, demo_loss):
    repository = model.parent / "models--some-org--demo"
    snapshots = repository / "snapshots"
    snapshots.mkdir(parents=True)
    model.rename(repository / "blobs")
    (snapshots / "0a").mkdir()
    for file in (repository / "blobs").iterdir():
        (snapshots / "0a" / file.name).symlink_to(f"../../blobs/{file.name}")
    assert loss(fettle, repository, data) == demo_loss
    done = fettle("eval", MODEL, "--data", data, "--against", repository,
                  "--json", "-", "--quiet")
    assert done.status == 0, done.err
    assert json.loads(done.out)["files"][0]["top1"] == 1
    done = fettle("tune", MODEL, "--data", data, "--teacher", repository,
                  "--steps", 1, "--tokens-per-step", 64, "--seq-len", 64,
                  "--out", model.parent / "tuned", "--quiet")
    assert done.status == 0, done.err
    recipe = model.parent / "recipe.yaml"
    recipe.write_text(f"model: {repository}\nout: {model.parent}/work\n"
                      f"stages: [export: {{format: ragged}}]\n")
    assert fettle("run", recipe, "--quiet").status == 0
    (snapshots / "1b").mkdir()
    refused(fettle("inspect", repository), "the one of its snapshots")


@pytest.mark.parametrize("given, words", [
    ("some-org/Some-30B", ["hf download some-org/Some-30B"]),
    ("nowhere", ["there is no such folder"]),
    ("file", [f"give its folder, {MODEL}"]),
    ("gguf", ["is a GGUF file"]),
    ("bin", ["has its weights in pytorch_model.bin", "save_pretrained"]),
    ("peft", ["holds a PEFT adapter"]),
    ("adapter", ["fettle merge BASE --adapter"]),
    ("partial", ["is the unfinished output of a run"]),
    ("lfs", ["found a Git LFS pointer"]),
    ("pipe", ["expected a file, found a pipe"]),
])
def test_what_is_no_model_is_named(fettle, model, tmp_path, given, words):
    path = tmp_path / given
    if given == "some-org/Some-30B":
        path = given
    elif given == "file":
        path = MODEL / FILE
    elif given == "gguf":
        path = tmp_path / "m.gguf"
        path.write_bytes(b"GGUF")
    elif given == "bin":
        path = model
        (model / FILE).rename(model / "pytorch_model.bin")
    elif given in ("peft", "adapter"):
        path.mkdir()
        name = "adapter_config" if given == "peft" else "adapter"
        (path / f"{name}.json").write_text("{}")
        (path / "adapter.safetensors").touch()
    elif given == "partial":
        path = shutil.copytree(model, tmp_path / "out.partial")
        (path / ".fettle-lock").touch()
    elif given == "lfs":
        path = model
        (model / FILE).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif given == "pipe":
        path = model
        (model / "config.json").unlink()
        os.mkfifo(model / "config.json")
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "none")}
    refused(fettle("inspect", path, env=environment), *words)


def test_inspect_refuses_another_tied_head(fettle, model):
    def other_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2

    change_weights(model, other_head)
    refused(fettle("inspect", model), "differs from the embeddings")


def test_inspect_looks_at_values_where_asked(fettle, model):
    done = fettle("inspect", MODEL, "--values", "--quiet")
    assert done.status == 0, done.err
    assert "all are finite; none is 0 throughout" in done.out

    def damage(tensors):
        tensors["model.layers.1.mlp.gate.weight"][0, 0] = float("nan")
        tensors["model.layers.0.input_layernorm.weight"].zero_()

    change_weights(model, damage)
    assert fettle("inspect", model).status == 0
    refused(fettle("inspect", model, "--values", "--quiet"),
            "model.layers.1.mlp.gate.weight: holds 1 values that are NaN")

    change_weights(model, lambda t: [tensor.zero_() for tensor in t.values()])
    refused(fettle("inspect", model, "--values", "--quiet"),
            "all weights are 0")


def test_begin_tokens_that_nobody_adds_are_told(fettle, model, data):
    change_json(model / "tokenizer_config.json", add_bos_token=True)
    done = fettle("eval", model, "--data", data)
    assert done.status == 0, done.err
    assert done.err.count('says "add_bos_token": true') == 1, done.err
    assert "add_bos_token" not in fettle("eval", MODEL, "--data", data).err


def test_other_tokenizers_are_named(fettle, model, data):
    (model / "tokenizer.json").rename(model / "tokenizer.model")
    refused(fettle("eval", model, "--data", data, "--quiet"),
            "holds tokenizer.model, but no tokenizer.json")
