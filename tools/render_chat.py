#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Renders conversations with a model's own chat template, by transformers' own
template engine. Usage: render_chat.py MODEL_FOLDER

Reads one row of a data file a line from stdin: a JSON object with "messages", and
maybe "tools", "documents" and "chat_template_kwargs". Writes one JSON object a line to stdout:
first {"ready": true}, then for each row {"segments": [[text, counts], ...]},
where the texts joined are the rendered conversation and counts says whether that
stretch is trained on; or {"error": message}. A row under "ask" is a conversation
that the assistant is to go on with: the reply is {"text": ...}, up to where its
answer begins.

What the assistant wrote is what the template marks by {% generation %}, else
what the template writes in an assistant message's round of its loop, without
what it writes to ask for an answer (chat_answers.py)."""

import json
import os
import pathlib
import resource
import select
import signal
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from chat_rows import TemplateProblem, read_row  # noqa: E402

# Of one conversation.
CPU_SECONDS = 60
MEMORY = 4 << 30


class OutOfTime(BaseException):
    """Not an Exception, so that nothing on the way takes it for its own."""


def read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateProblem(f"{path.name} can't be read: {error}") from error


def read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(read_text(path)) if path.exists() else {}
    except ValueError as error:
        raise TemplateProblem(f"{path.name} is not valid JSON: {error}") from error


def read_templates(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """By name, each template and the file it is in."""
    templates = {}
    config = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(config, str):
        config = [{"name": "default", "template": config}]
    for entry in config if isinstance(config, list) else []:
        templates[entry["name"]] = (entry["template"], "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    if file.exists():
        templates = {"default": (read_text(file), file.name)}
    for more in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[more.stem] = (read_text(more), more.name)
    if "default" not in templates:
        raise TemplateProblem(
            "no chat template: neither chat_template.jinja nor a chat_template "
            "in tokenizer_config.json; use the form {prompt, completion} instead"
        )
    return templates


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
    """One model's templates."""

    def __init__(self, folder: pathlib.Path):
        self._sources = read_templates(folder)
        self._tokens = special_tokens(folder)
        self._templates = {}
        try:
            from transformers.utils import is_jinja_available
        except ImportError as error:
            raise TemplateProblem(
                f"{sys.executable} lacks a package: {error}; "
                "install transformers and jinja2 or set FETTLE_PYTHON"
            ) from error
        if not is_jinja_available():
            raise TemplateProblem(
                f"{sys.executable} lacks jinja2; install it or set FETTLE_PYTHON"
            )

    def _template(self, name: str):
        from chat_answers import Template

        if name not in self._templates:
            self._templates[name] = Template(*self._sources[name], self._tokens)
        return self._templates[name]

    def _template_for(self, talk):
        with_tools = talk.tools is not None and "tool_use" in self._sources
        return self._template("tool_use" if with_tools else "default")

    def reply(self, row: dict) -> dict:
        if "ask" in row:
            return {"text": self.asked(row["ask"])}
        return {"segments": self.segments(row)}

    def asked(self, row: dict) -> str:
        talk = read_row(row)
        text, _ = self._template_for(talk).render(
            talk.messages, talk.options(), add_generation_prompt=True
        )
        return checked(text)

    def segments(self, row: dict) -> list[tuple[str, bool]]:
        talk = read_row(row)
        text, spans = self._template_for(talk).spans(talk)
        checked(text)
        cut, end = [], 0
        for first, last in joined(spans):
            cut += [(text[end:first], False), (text[first:last], True)]
            end = last
        cut.append((text[end:], False))
        return [piece for piece in cut if piece[0]]


def checked(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise TemplateProblem(
            "holds half of a pair of surrogates (\\ud800 to \\udfff), which is "
            "no character"
        )
    return text


def joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that touch as one."""
    result = []
    for first, last in spans:
        if result and result[-1][1] == first:
            first = result.pop()[0]
        result.append((first, last))
    return result


def out_of_time(_signal, _frame) -> None:
    raise OutOfTime


def limited(render, row: dict) -> dict:
    """render(row), or a problem where it takes too much time or memory."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 2 * CPU_SECONDS
    # Kills where no Python code runs that could hear of the timer.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        return render(row)
    except OutOfTime:
        raise TemplateProblem(
            f"the template takes more than {CPU_SECONDS} seconds for this conversation"
        ) from None
    except MemoryError:
        raise TemplateProblem(
            f"the template takes more than {MEMORY >> 30} GiB for this conversation"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory() -> None:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def end_with_reader() -> None:
    """Ends this process when nobody is left to read its answers."""
    poll = select.poll()
    poll.register(1, 0)  # hang-up and errors are always told
    while not poll.poll():
        pass
    os._exit(1)


def reply(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


def one_line(problem: TemplateProblem | str) -> str:
    line = " ".join(str(problem).split())
    return line if len(line) < 1000 else line[:1000] + "…"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    threading.Thread(target=end_with_reader, daemon=True).start()
    signal.signal(signal.SIGPROF, out_of_time)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the reader decides
    try:
        renderer = Renderer(pathlib.Path(sys.argv[1]))
    except TemplateProblem as problem:
        reply({"error": one_line(problem)})
        return 1
    reply({"ready": True})
    limit_memory()
    for line in sys.stdin.buffer:
        try:
            reply(limited(renderer.reply, json.loads(line)))
        except TemplateProblem as problem:
            reply({"error": one_line(problem)})
        except Exception as error:  # a row like no other; the next may do
            reply({"error": one_line(f"{type(error).__name__}: {error}")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
