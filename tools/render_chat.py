#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Renders conversations with a model's own chat template, by transformers' own
template engine. Usage: render_chat.py MODEL_FOLDER

Reads one JSON object with "messages" a line from stdin. Writes one JSON object a line
to stdout: first {"ready": true}, then for each conversation {"segments":
[[text, counts], ...]}, where the texts joined are the rendered conversation and
counts says whether the assistant wrote that stretch; or {"error": message}.

What the assistant wrote is what the template marks by {% generation %}. Without
such marks it is, for each assistant message, the difference between the
conversation up to the message, with the prompt for an answer, and the
conversation with it."""

import json
import pathlib
import re
import sys


class TemplateProblem(Exception):
    """A template or conversation that can't be used; one line."""


def read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise TemplateProblem(f"{path.name} is not valid JSON: {error}") from error


def read_template(folder: pathlib.Path) -> tuple[str, str]:
    """The template and the name of the file it is in."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8"), file.name
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    if not isinstance(template, str):
        raise TemplateProblem(
            "no chat template: neither chat_template.jinja nor a chat_template "
            "in tokenizer_config.json; use the form {prompt, completion} instead"
        )
    return template, "tokenizer_config.json"


def special_tokens(folder: pathlib.Path) -> dict[str, str]:
    """bos_token, eos_token, ... as templates name them."""
    tokens = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in read_json(folder / name).items():
            if isinstance(value, dict):
                value = value.get("content")
            if key.endswith("_token") and isinstance(value, str):
                tokens[key] = value
    return tokens


class Renderer:
    """One model's template."""

    def __init__(self, folder: pathlib.Path):
        self.template, self.file = read_template(folder)
        self.tokens = special_tokens(folder)
        try:
            from transformers.utils import chat_template_utils, is_jinja_available
        except ImportError as error:
            raise TemplateProblem(
                f"{sys.executable} lacks a package: {error}; "
                "install transformers and jinja2 or set FETTLE_PYTHON"
            ) from error
        if not is_jinja_available():
            raise TemplateProblem(
                f"{sys.executable} lacks jinja2; install it or set FETTLE_PYTHON"
            )
        self.engine = chat_template_utils.render_jinja_template
        self.marked = re.search(r"\{%-?\s*generation\s*-?%\}", self.template)

    def _render(self, messages: list, **options) -> tuple[str, list]:
        try:
            texts, spans = self.engine(
                [messages], chat_template=self.template, **options, **self.tokens
            )
        except Exception as error:  # templates raise whatever they like
            raise TemplateProblem(
                f"the template in {self.file} failed: {type(error).__name__}: {error}"
            ) from error
        return texts[0], spans[0] if spans else []

    def spans(self, messages: list) -> tuple[str, list[tuple[int, int]]]:
        """The text, and first and last character of what the assistant wrote."""
        if self.marked:
            return self._render(messages, return_assistant_tokens_mask=True)
        text, _ = self._render(messages)
        spans = []
        for i, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            # Some templates refuse to render nothing at all.
            asked = (
                self._render(messages[:i], add_generation_prompt=True)[0] if i else ""
            )
            told = self._render(messages[: i + 1])[0]
            if not told.startswith(asked) or not text.startswith(told):
                raise TemplateProblem(
                    f"the template in {self.file} writes message {i + 1} in another "
                    "way once other messages stand around it, so that what the "
                    "assistant wrote can't be told; put the assistant's part in "
                    "{% generation %} marks or give one answer a conversation"
                )
            spans.append((len(asked), len(told)))
        return text, spans

    def segments(self, messages: list) -> list[tuple[str, bool]]:
        text, spans = self.spans(messages)
        cut, end = [], 0
        for first, last in spans:
            cut += [(text[end:first], False), (text[first:last], True)]
            end = last
        cut.append((text[end:], False))
        return [piece for piece in cut if piece[0]]


def reply(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


def one_line(problem: TemplateProblem) -> str:
    return " ".join(str(problem).split())


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        renderer = Renderer(pathlib.Path(sys.argv[1]))
    except TemplateProblem as problem:
        reply({"error": one_line(problem)})
        return 1
    reply({"ready": True})
    for line in sys.stdin:
        try:
            reply({"segments": renderer.segments(json.loads(line)["messages"])})
        except TemplateProblem as problem:
            reply({"error": one_line(problem)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
