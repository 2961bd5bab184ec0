# SPDX-License-Identifier: Apache-2.0
"""Conversations as a person gives them, on the bundled model."""

import json

from conftest import MODEL


def line(*contents, **keys) -> str:
    roles = ("user", "assistant")
    messages = [
        {"role": roles[i % 2], "content": c} | (keys if i == 1 else {})
        for i, c in enumerate(contents)
    ]
    return json.dumps({"messages": messages}) + "\n"


def scored(fettle, tmp_path, *lines) -> list[int]:
    """Scored tokens of each line, all read by one program."""
    names = []
    for i, text in enumerate(lines):
        names.append(tmp_path / f"{i}.jsonl")
        names[-1].write_text(text)
    result = tmp_path / "result.json"
    done = fettle("eval", MODEL, "--data", *names, "--quiet", "--json", result)
    assert done.status == 0, done.err
    return [file["tokens"] for file in json.loads(result.read_text())["files"]]


def test_each_answer_of_a_conversation_counts_once(fettle, tmp_path):
    tom, olga = ("How many has Tom?", "He has 3."), ("And Olga?", "She has 5.")
    one, other, both, weighed, asked = scored(
        fettle,
        tmp_path,
        line(*tom),
        line(*olga),
        line(*tom, *olga),
        line(*tom, *olga, weight=0),
        line(*tom, "And Olga?"),
    )
    assert 0 < one < 20
    assert both == one + other
    assert weighed == other
    assert asked == one


def test_what_has_no_effect_is_refused(fettle, tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text(line("a", "b") + line("a", "b", reasoning_content="c"))
    done = fettle("eval", MODEL, "--data", data, "--quiet")
    assert done.status == 1
    (told,) = [said for said in done.err.splitlines() if said.strip()]
    for word in ("[chat]", "d.jsonl:2", "'reasoning_content' of message 2"):
        assert word in told, told
