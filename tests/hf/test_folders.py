# SPDX-License-Identifier: Apache-2.0
"""Folders whose weights are spelled otherwise than save_pretrained does, and
which transformers loads: logits equal its own."""

import json

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file

IDS = [[3, 1, 4, 1, 5, 9, 2, 6], [53, 58, 9]]
# As test_families.py: relative to the largest logit, fp32 summed in two orders.
TOLERANCE = 1e-4


def bare(folder):
    """As AutoModel saves it, with the head beside."""
    tensors = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): tensor
               for name, tensor in tensors.items()},
              folder / "model.safetensors", {"format": "pt"})


def overlay(folder):
    """A second shard with other values of some tensors, as the index says."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    later = {name: tensor * 1.5 for name, tensor in tensors.items()
             if ".layers.1." in name}
    places = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    places.update(dict.fromkeys(later, "model-00002-of-00002.safetensors"))
    save_file(tensors, folder / "model-00001-of-00002.safetensors",
              {"format": "pt"})
    save_file(later, folder / "model-00002-of-00002.safetensors",
              {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def spellings(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["hidden_act"] = "swish"
    config["rope_parameters"].update(finetuned=True, mrope_section=[1, 1, 2])
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("change", [bare, overlay, spellings])
def test_spelling_equals_transformers(change, probe, tmp_path):
    folder = tiny_models.make("olmoe", tmp_path)
    change(folder)
    model = tiny_models.load(folder)
    with torch.no_grad():
        expected = torch.cat(
            [model(torch.tensor([ids])).logits[0] for ids in IDS])
    found = probe("logits", folder, IDS, "cpu")["logits"]
    error = (found - expected).abs().max()
    assert error <= TOLERANCE * expected.abs().max(), error
