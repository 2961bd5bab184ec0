# SPDX-License-Identifier: Apache-2.0
"""fit from config.json alone: a model's bytes are those of the tensors that
transformers makes of the same configuration, and each part is counted."""

import json
import subprocess

import pytest
import tiny_models
import torch
import transformers

# The first variant of each family.
FAMILIES = list({v.model_type: name for name, v in reversed(
    tiny_models.VARIANTS.items())}.values())


def numbers(config):
    """Of all tensors that a checkpoint of the model has."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    tied = tied if config.tie_word_embeddings else set()
    return sum(tensor.numel() for name, tensor in model.state_dict().items()
               if name not in tied)


@pytest.mark.parametrize("name", FAMILIES)
def test_bytes_are_those_of_the_tensors(name, build_dir, tmp_path):
    config = tiny_models.config_of(tiny_models.VARIANTS[name])
    config.dtype = torch.bfloat16
    config.save_pretrained(tmp_path)
    done = subprocess.run(
        [build_dir / "fettle", "fit", tmp_path, "--json", "-", "--quiet"],
        capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    whole = next(row for row in table["rows"]
                 if row["keep"] == 1 and row["scheme"] == "stored")
    assert whole["file_bytes"] == 2 * numbers(config), name
    assert whole["weights"]["experts"] > 0
    assert whole["total_bytes"] == sum(
        [*whole["weights"].values(), whole["state_bytes"],
         whole["working_bytes"], whole["runtime_bytes"]])
    widths = {row["width"] for row in table["rows"]}
    assert len(widths) > 1
