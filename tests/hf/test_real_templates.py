# SPDX-License-Identifier: Apache-2.0
"""Conversations by the chat templates that models ship: the text is transformers',
each answer is found in it and no question is, or the row is refused with the
cause. FETTLE_TOKENIZERS names folders as for test_real_tokenizers.py; skipped where
it is not set."""

from __future__ import annotations

import json
import os
import pathlib
import time

import pytest
from test_chat import TemplateProblem, render_chat, render_jinja_template, said

CALL = {"type": "function", "function": {"name": "get_weather"}}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def called(arguments) -> list[dict]:
    call = {**CALL, "function": {**CALL["function"], "arguments": arguments}}
    return [
        {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"temperature": 20}'},
        {"role": "assistant", "content": "20 degrees"},
    ]


ARGUMENTS = {"place": "Paris", "days": 3}
ROWS = {
    "one answer": {"messages": said("Hello", "Good day")},
    "a system's word": {
        "messages": [{"role": "system", "content": "You are kind."}]
        + said("Hello", "Good day", "And then?", "Done.")
    },
    "two answers": {
        "messages": [*said("Hello", "One"), {"role": "assistant", "content": "Two"}]
    },
    "a thought": {
        "messages": said("Hello")
        + [{"role": "assistant", "content": "Yes", "reasoning_content": "I think"}]
    },
    "calls": {"messages": called(ARGUMENTS)},
    "calls as text": {"messages": called(json.dumps(ARGUMENTS))},
    "calls and tools": {"messages": called(ARGUMENTS), "tools": [TOOL]},
    "tools alone": {"messages": said("How warm?", "20 degrees"), "tools": [TOOL]},
    "400 turns": {"messages": said(*(f"word {i}" for i in range(400)))},
}
# What a template may lack, and the words that name it.
REFUSED = (
    "has no use for 'tools'",
    "leaves out '",
    "may want each content as a list",
    "may want a call's arguments as a",
)


def shipped() -> list[pathlib.Path]:
    folders = filter(None, os.environ.get("FETTLE_TOKENIZERS", "").split(":"))
    found = set()
    for folder in map(pathlib.Path, folders):
        found |= {file.parent for file in folder.rglob("chat_template.jinja")}
        for file in folder.rglob("tokenizer_config.json"):
            if "chat_template" in json.loads(file.read_text()):
                found.add(file.parent)
    return sorted(found)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize(
    "folder",
    shipped()
    or [pytest.param(None, marks=pytest.mark.skip("FETTLE_TOKENIZERS is not set"))],
    ids=lambda folder: folder.name if folder else "none",
)
def test_the_whole_is_rendered_once_and_answers_are_found(folder, row):
    renderer = render_chat.Renderer(folder)
    sources = render_chat.read_templates(folder)
    tools = row.get("tools")
    name = "tool_use" if tools and "tool_use" in sources else "default"
    start = time.monotonic()
    try:
        segments = renderer.segments(row)
    except TemplateProblem as problem:
        assert any(words in str(problem) for words in REFUSED), problem
        return
    assert time.monotonic() - start < 10
    (text,), _ = render_jinja_template(
        [row["messages"]],
        tools=tools,
        chat_template=sources[name][0],
        **render_chat.special_tokens(folder),
    )
    assert "".join(piece for piece, _ in segments) == text
    trained = [piece for piece, counts in segments if counts]
    for message in filter(lambda m: m["content"], row["messages"]):
        found = any(message["content"] in piece for piece in trained)
        if len(row["messages"]) < 400:  # "word 1" is a part of "word 10"
            assert found == (message["role"] == "assistant"), message
