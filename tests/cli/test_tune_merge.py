# SPDX-License-Identifier: Apache-2.0
"""What tune, merge and eval tell, refuse, and bend to the model."""

import json
import shutil

import pytest
import safetensors.torch
from conftest import HELD, MODEL, TRAIN

SHORT = ("--steps", 2, "--tokens-per-step", 256, "--seq-len", 128)
LORA = ("--method", "lora", "--rank", 4, *SHORT)


def result_of(done):
    assert done.status == 0, done.err
    return json.loads(done.out)


@pytest.fixture(scope="module")
def tuned(fettle, tmp_path_factory):
    """An adapter of pairs large enough to show in bfloat16."""
    out = tmp_path_factory.mktemp("tuned") / "adapter"
    done = fettle("tune", MODEL, "--data", TRAIN, "--out", out, *LORA, "--lr",
                  0.01)
    assert done.status == 0, done.err
    assert "peak learning rate 0.01, loss" in done.out
    assert f"{out}/report.html" in done.out and "fettle merge" in done.out
    return out


def test_steps_told_as_they_are(fettle, tmp_path):
    data = tmp_path / "few.jsonl"
    data.write_text("".join(TRAIN.read_text().splitlines(True)[:40]))
    tune = ("tune", MODEL, "--data", data, "--method", "lora", "--rank", 2)
    done = fettle(*tune, "--epochs", 2, "--tokens-per-step", 300, "--seq-len",
                  128, "--out", tmp_path / "a", "--json", "-")
    steps = result_of(done)["steps"]
    assert f"2 epochs of 40 samples are {steps} steps" in done.err
    assert "256 tokens, 2 whole sequences of 128: 300" in done.err
    assert result_of(done)["peak_rates"].keys() == {"lora"}
    assert result_of(done)["own_rates"]
    both = fettle(*tune, "--epochs", 2, "--steps", 3, "--out", tmp_path / "b")
    assert both.status == 2 and "--steps" in both.err


def test_a_merge_that_was_killed_goes_on_behind_epochs(fettle, tmp_path):
    data = tmp_path / "few.jsonl"
    data.write_text("".join(TRAIN.read_text().splitlines(True)[:20]))
    merged = tmp_path / "merged"
    tune = ("tune", MODEL, "--data", data, "--method", "lora", "--rank", 2,
            "--tokens-per-step", 256, "--seq-len", 128, "--out",
            tmp_path / "out", "--merge", merged, "--quiet")
    assert fettle(*tune, "--epochs", 2).status == 0
    whole = (merged / "model.safetensors").read_bytes()
    shutil.rmtree(merged)
    other = fettle(*tune, "--epochs", 5, "--resume")
    assert other.status == 1 and "options/steps" in other.err
    done = fettle(*tune, "--epochs", 2, "--resume")
    assert done.status == 0, done.err
    assert (merged / "model.safetensors").read_bytes() == whole


def test_options_that_were_refused_late_or_never(fettle, tmp_path):
    out = ("--data", TRAIN, "--out", tmp_path / "tuned", "--quiet")
    wide = fettle("tune", MODEL, *out, "--method", "lora", "--rank", 4096)
    assert wide.status == 1 and "rank: expected at most" in wide.err
    # Weights alone are chosen in each layer, without being told so.
    one = fettle("tune", MODEL, *out, *SHORT, "--unit", "element",
                 "--score-sequences", 2, "--router", "frozen")
    assert one.status == 0, one.err
    again = fettle("tune", MODEL, *out, *SHORT)
    assert again.status == 1 and "finished adapter" in again.err
    for target in ("--merge", "--peft"):
        empty = fettle("tune", MODEL, "--data", TRAIN, "--out",
                       tmp_path / "other", target, "")
        assert empty.status == 2 and target in empty.err
    alone = fettle("tune", MODEL, "--data", TRAIN, "--out", tmp_path / "other",
                   "--merge-dtype", "float32")
    assert alone.status == 2 and "--merge" in alone.err
    assert not (tmp_path / "other.partial").exists()


def test_lengths_bend_to_the_model(fettle, model, tmp_path):
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] = 96
    (model / "config.json").write_text(json.dumps(config))
    data = ("--data", HELD)
    assert fettle("eval", model, *data, "--quiet").status == 0
    for command in (("eval", model, *data),
                    ("analyze", model, *data, "--out", tmp_path / "scores")):
        long = fettle(*command, "--seq-len", 97)
        assert long.status == 1 and "96 positions, found 97" in long.err
    done = fettle("tune", model, "--data", TRAIN, "--method", "lora", "--rank",
                  2, "--steps", 1, "--tokens-per-step", 200, "--quiet",
                  "--out", tmp_path / "tuned", "--json", "-")
    assert result_of(done)["tokens"] == 192


def test_eval_adds_a_row_for_all(fettle):
    done = fettle("eval", MODEL, "--data", HELD, TRAIN.with_name(
        "held_code.jsonl"), "--seq-len", 128, "--quiet", "--json", "-")
    result = result_of(done)
    tokens = sum(f["tokens"] for f in result["files"])
    nll = sum(f["tokens"] * f["nll"] for f in result["files"]) / tokens
    assert result["all"]["tokens"] == tokens
    assert result["all"]["nll"] == pytest.approx(nll)
    assert "file" not in result["all"]


def weights_of(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_merged_weights_are_in_the_type_that_is_named(fettle, tuned, tmp_path):
    merge = ("merge", MODEL, "--adapter", tuned, "--quiet")
    kept = fettle(*merge, "--out", tmp_path / "kept")
    assert kept.status == 0, kept.err
    assert "float32 would round nothing off" in kept.out
    wide = result_of(fettle(*merge, "--dtype", "float32", "--out",
                            tmp_path / "wide", "--json", "-"))
    base = weights_of(MODEL)
    narrow, whole = (weights_of(tmp_path / name) for name in ("kept", "wide"))
    config = json.loads((MODEL / "config.json").read_text())
    key = "dtype" if "dtype" in config else "torch_dtype"
    for folder, named in (("kept", config[key]), ("wide", "float32")):
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config[key] == named
    changed = [name for name, tensor in whole.items()
               if not tensor.float().equal(base[name].float())]
    assert changed
    for name, tensor in narrow.items():
        assert tensor.dtype == base[name].dtype
        if name in changed:
            assert str(whole[name].dtype) == "torch.float32"
            assert tensor.equal(whole[name].to(tensor.dtype))
    assert wide["dtype"] == "float32" and wide["expert_up"]["lost"] == 0
    neither = fettle(*merge)
    assert neither.status == 2 and "--peft" in neither.err


def test_base_in_other_files_is_the_same_base(fettle, tuned, model, tmp_path):
    tensors = weights_of(model)
    (model / "model.safetensors").unlink()
    index = {}
    for i, names in enumerate((list(tensors)[::2], list(tensors)[1::2])):
        shard = f"model-0000{i + 1}-of-00002.safetensors"
        safetensors.torch.save_file(
            {name: tensors[name].contiguous() for name in names},
            model / shard, {"format": "pt"})
        index |= dict.fromkeys(names, shard)
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}))
    config = json.loads((model / "config.json").read_text())
    config["transformers_version"] = "5.99"
    (model / "config.json").write_text(json.dumps(config, indent=7))
    merge = ("merge", model, "--adapter", tuned, "--quiet")
    done = fettle(*merge, "--out", tmp_path / "same")
    assert done.status == 0, done.err
    # Another base takes insisting.
    shutil.copy(MODEL / "config.json", model / "config.json")
    name = next(name for name in tensors if "up_proj" in name)
    shard = model / index[name]
    changed = safetensors.torch.load_file(shard)
    changed[name] = changed[name] * 2
    safetensors.torch.save_file(changed, shard, {"format": "pt"})
    other = fettle(*merge, "--out", tmp_path / "other")
    assert other.status == 1 and "--any-base" in other.err
    insisted = fettle(*merge, "--out", tmp_path / "other", "--any-base")
    assert insisted.status == 0, insisted.err
