# SPDX-License-Identifier: Apache-2.0
"""Where `fettle generate` ends, against transformers' generate, by what
generation_config.json and config.json name."""

import dataclasses
import json
import pathlib
import shutil
import subprocess

import expert_trace
import pytest
import tiny_models
import torch
import transformers

MODEL = pathlib.Path(__file__).resolve().parents[2] / "demo" / "model"
PROMPT = "Tom has 3"
TOKENS = 12
LONG = 200


def write_model(folder: pathlib.Path, config, generation) -> pathlib.Path:
    """The demo model with these `eos_token_id`; `generation` None: no file."""
    shutil.copytree(MODEL, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": config}))
    file = folder / "generation_config.json"
    file.unlink()
    if generation is not None:
        file.write_text(json.dumps({"eos_token_id": generation}))
    return folder


def reference(folder: pathlib.Path) -> list[int]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    )
    prompt = tokenizer(PROMPT, return_tensors="pt").input_ids
    made = model.generate(prompt, max_new_tokens=TOKENS, do_sample=False)
    return made[0, prompt.shape[1] :].tolist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[int]:
    """What comes where nothing ends it."""
    ids = reference(write_model(tmp_path_factory.mktemp("whole") / "m", None, None))
    assert len(ids) == TOKENS
    return ids


# Tokens by their place in `whole`.
@pytest.mark.parametrize(
    ("config", "generation"),
    [
        (None, None),
        (4, None),
        ([7, 4], None),
        (4, 7),
        (7, 4),
        (4, [8, 7]),
        (None, [7, 4]),
    ],
)
def test_generation_ends_where_transformers_ends_it(
    config, generation, whole, fettle, tmp_path
):
    def token(at):
        return [token(i) for i in at] if isinstance(at, list) else at and whole[at]

    folder = write_model(tmp_path / "m", token(config), token(generation))
    command = [fettle, "generate", folder, "--prompt", PROMPT, "--quiet"]
    command += ["--max-new-tokens", str(TOKENS), "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["ids"] == reference(folder)


def likeliest_within_rounding(folder, given, made) -> None:
    """Token by token, each is what transformers finds likeliest after all the
    tokens before it, or next to it within rounding."""
    with torch.no_grad():
        ids = torch.cat([given, made]).unsqueeze(0)
        logits = tiny_models.load(folder)(ids).logits[0]
    logits = logits[len(given) - 1 : -1]
    chosen = logits.gather(1, made[:, None])[:, 0]
    assert (logits.amax(1) - chosen).max() <= 1e-3 * logits.abs().max()


def write_tiny(name, folder, positions) -> pathlib.Path:
    variant = tiny_models.VARIANTS[name]
    variant = dataclasses.replace(
        variant,
        config=variant.config
        | {"max_position_embeddings": positions, "eos_token_id": None},
    )
    folder = tiny_models.write(variant, folder)
    expert_trace.write_tokenizer(folder)
    return folder


def encoded(folder, text):
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json")
    )
    return tokenizer(text, return_tensors="pt").input_ids[0]


# The shortest prompts are shorter than a convolution.
@pytest.mark.parametrize(
    "name,prompt",
    [
        *(
            (name, PROMPT)
            for name in (
                "deepseek_v3", "glm_lite", "dots_window_bias", "glm", "ernie",
                "minimax", "mellum_types", "granite_shared", "afmoe", "gemma",
                "gpt_oss", "lfm2", "qwen35",
            )
        ),
        ("lfm2_bias_untied", "T"),
        ("qwen_next", "T"),
        ("granite_hybrid", "T"),
        ("nemotron", "T"),
    ],
)
def test_many_tokens_are_the_likeliest(name, prompt, fettle, tmp_path):
    folder = write_tiny(name, tmp_path / "m", LONG + 50)
    command = [fettle, "generate", folder, "--prompt", prompt, "--quiet"]
    command += ["--max-new-tokens", str(LONG), "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = torch.tensor(json.loads(done.stdout)["ids"])
    assert len(made) == LONG
    likeliest_within_rounding(folder, encoded(folder, prompt), made)


# Prompts of unequal lengths, one longer than a chunk of it is passed at once.
PROMPTS = ["T", PROMPT, "abc" * 7, "Once upon a time " * 40, "Tom", "x y z" * 3]


@pytest.mark.parametrize(
    "name", ["deepseek_v3", "gpt_oss", "lfm2", "qwen_next", "granite_hybrid"]
)
def test_prompts_of_unequal_lengths_together(name, fettle, tmp_path):
    """Each is what it would be alone."""
    folder = write_tiny(name, tmp_path / "m", 800)
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": p, "answer": ""}) + "\n" for p in PROMPTS)
    )
    made = {}
    for parallel in (1, 4):
        rows = tmp_path / f"{parallel}.jsonl"
        command = [fettle, "eval", folder, "--generate", file, "--rows", rows]
        command += ["--max-new-tokens", "20", "--parallel", str(parallel), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = rows.read_text().splitlines()
        made[parallel] = [json.loads(line)["ids"] for line in lines]
    assert made[1] == made[4]
    for prompt, ids in zip(PROMPTS, made[4], strict=True):
        likeliest_within_rounding(folder, encoded(folder, prompt), torch.tensor(ids))
