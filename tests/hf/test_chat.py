# SPDX-License-Identifier: Apache-2.0
"""tools/render_chat.py against transformers: the text it renders, and which
tokens it lets count, on templates as models ship them."""

import json
import pathlib
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "render_chat.py"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% if loop.last %}<think>{% endif %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
)
# As Qwen3: earlier answers lose what the last one has.
UNSTABLE = (
    "{% for m in messages %}<{{ m['role'] }}>"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [
    {"role": "user", "content": "Hällo <|im_end|> 😀"},
    {"role": "assistant", "content": "An answer\nin two lines"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "Done."},
]


def write_model(folder: pathlib.Path, template: str, **config) -> pathlib.Path:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def ask(folder, *conversations, python=sys.executable) -> list[dict]:
    feed = "".join(json.dumps({"messages": c}) + "\n" for c in conversations)
    done = subprocess.run(
        [python, SCRIPT, folder], input=feed, capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def rendered(folder, conversation) -> tuple[str, list[str]]:
    """The text, and what counts in it."""
    ready, answer = ask(folder, conversation)
    assert ready == {"ready": True}
    segments = answer["segments"]
    return "".join(s for s, _ in segments), [s for s, counts in segments if counts]


@pytest.mark.parametrize("template", (CHATML, INSTRUCT, MARKED))
def test_text_is_what_transformers_renders(tmp_path, template):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    text, _ = rendered(write_model(tmp_path, template, **tokens), TALK)
    assert [text] == render_jinja_template([TALK], chat_template=template, **tokens)[0]


def test_answers_count(tmp_path):
    _, counts = rendered(write_model(tmp_path, CHATML), TALK)
    assert counts == ["An answer\nin two lines<|im_end|>\n", "Done.<|im_end|>\n"]
    # Special tokens may be written as objects.
    tokens = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    text, counts = rendered(write_model(tmp_path, INSTRUCT, **tokens), TALK)
    assert counts == ["An answer\nin two lines</s>", "Done.</s>"]
    assert text.startswith("<s>[INST] Hällo")
    _, counts = rendered(write_model(tmp_path, MARKED), TALK)
    assert counts == ["An answer\nin two lines<|im_end|>", "Done.<|im_end|>"]
    _, counts = rendered(write_model(tmp_path, CHATML), TALK[:1])
    assert counts == []


def test_template_in_tokenizer_config(tmp_path):
    config = {"chat_template": [{"name": "default", "template": CHATML}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert rendered(tmp_path, TALK)[0].startswith("<|im_start|>user")
    config = {"chat_template": CHATML}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert rendered(tmp_path, TALK)[0].startswith("<|im_start|>user")


def test_failures_are_one_line(tmp_path):
    assert "no chat template" in ask(tmp_path, TALK)[0]["error"]
    write_model(tmp_path, INSTRUCT, bos_token="", eos_token="")
    ready, bad, good = ask(tmp_path, TALK[1:], TALK)
    assert "roles must alternate" in bad["error"]
    assert "\n" not in bad["error"]
    assert "segments" in good
    write_model(tmp_path, "{% if %}")
    assert "chat_template.jinja failed" in ask(tmp_path, TALK)[1]["error"]
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert "not valid JSON" in ask(tmp_path, TALK)[0]["error"]


def test_unstable_template_is_named(tmp_path):
    write_model(tmp_path, UNSTABLE)
    _, one, two = ask(tmp_path, TALK[:2], TALK)
    assert "segments" in one
    assert "writes message 2 in another way" in two["error"]
    assert "{% generation %}" in two["error"]


def test_missing_package_is_named(tmp_path):
    """A Python without site-packages has no transformers."""
    write_model(tmp_path, CHATML)
    python = tmp_path / "bare-python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    (answer,) = ask(tmp_path, TALK, python=python)
    assert "lacks a package" in answer["error"]
    assert "FETTLE_PYTHON" in answer["error"]


def test_labels_end_to_end(build_dir, tmp_path):
    """From messages in a data file to labels, through every layer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    from tokenizers.trainers import BpeTrainer

    tokenizer.train_from_iterator(
        ["An answer in two lines. Done. And then?"] * 20,
        BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|im_start|>", "<|im_end|>"],
            show_progress=False,
        ),
    )
    write_model(tmp_path, CHATML)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": TALK}) + "\n")
    done = subprocess.run(
        [build_dir / "fettle_tokenize", tmp_path, "--samples", tmp_path / "d.jsonl"]
        + [sys.executable, SCRIPT],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    (sample,) = [json.loads(line) for line in done.stdout.splitlines()]
    (text,), _ = render_jinja_template([TALK], chat_template=CHATML)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert sample["ids"] == encoding.ids
    answers = [(text.index(m["content"]), m["content"]) for m in TALK[1::2]]
    spans = [(at, at + len(c) + len("<|im_end|>\n")) for at, c in answers]
    assert sample["labels"] == [
        i if any(a <= start and end <= b for a, b in spans) else -100
        for i, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]
