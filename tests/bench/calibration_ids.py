# SPDX-License-Identifier: Apache-2.0
"""Token ids of calibration text as JSONL, `{"input_ids": [...]}` a line, for
programs that are to see the same tokens as fettle."""

import json
import random


def tokenizer_of(model):
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))


def write(model, files, tokens, length, out, whole=False):
    """`tokens` in all, as many of each file, of lines drawn by a fixed seed and
    cut into windows of `length`; `whole`: lines are joined, so that every
    window is full."""
    tokenizer = tokenizer_of(model)
    rows = []
    for file in files:
        lines = file.read_text().splitlines()
        random.Random(1).shuffle(lines)
        documents, count = [], 0
        for line in lines:
            if count >= tokens // len(files):
                break
            documents.append(tokenizer.encode(json.loads(line)["text"]).ids)
            count += len(documents[-1])
        if whole:
            documents = [sum(documents, [])]
        left = tokens // len(files)
        for ids in documents:
            for begin in range(0, min(len(ids), left), length):
                rows.append(ids[begin:min(begin + length, left)])
            left -= min(len(ids), left)
    out.write_text("".join(
        json.dumps({"input_ids": row}) + "\n" for row in rows))
