# SPDX-License-Identifier: Apache-2.0
"""tools/render_chat.py against transformers: the text it renders, and which
tokens it lets count, on templates as models ship them."""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "render_chat.py"
sys.path.insert(0, str(SCRIPT.parent))
import render_chat  # noqa: E402
from chat_rows import TemplateProblem  # noqa: E402

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
# An earlier answer loses what the last one has, as with models that think.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% set said = m['content'] or '' %}"
    "{% if m['role'] == 'assistant' %}"
    "{% set thought = m.reasoning_content or '' %}"
    "{% if '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1] %}"
    "{% set said = said.split('</think>')[-1].strip() %}{% endif %}"
    "{% if loop.last %}<think>{{ thought }}</think>{% endif %}{% endif %}"
    "{{ said }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if thinks is defined and not thinks %}<think></think>{% endif %}{% endif %}"
)
# The asking for an answer ends in what earlier answers don't begin with; tools'
# results stand in the round of the answer that called them, by numbers.
CALLING = (
    "{{ bos_token }}{% macro body(m) %}{{ m['content'] | trim }}{% endmacro %}"
    "{% for m in messages %}{% set before = loop.previtem %}"
    "{% if m.role != 'tool' %}"
    "{% if not (before and before.role == 'tool') %}<{{ m.role }}>{% endif %}"
    "{% if m.role == 'assistant' and m.tool_calls %}"
    "<call>{{ m.tool_calls[0].function.name }}</call>"
    "{% set ns = namespace(on=true) %}"
    "{% for k in range(loop.index0 + 1, messages | length) %}"
    "{% set later = messages[k] %}"
    "{% if later.role != 'tool' %}{% set ns.on = false %}{% endif %}"
    "{% if ns.on %}<result>{{ later.content }}</result>{% endif %}{% endfor %}"
    "{% else %}{{ body(m) }}<end>{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{% if messages[-1].role != 'tool' %}<assistant><think>{% endif %}{% endif %}"
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
    """The answers of a process of its own."""
    feed = "".join(json.dumps({"messages": c}) + "\n" for c in conversations)
    done = subprocess.run(
        [python, SCRIPT, folder], input=feed, capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def rendered(folder, conversation) -> tuple[str, list[str]]:
    """The text, and what counts in it, without a process of its own."""
    segments = render_chat.Renderer(folder).segments({"messages": conversation})
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
    """In a process of its own, which goes on after each."""
    assert "no chat template" in ask(tmp_path, TALK)[0]["error"]
    write_model(tmp_path, INSTRUCT, bos_token="", eos_token="")
    ready, bad, good = ask(tmp_path, TALK[1:], TALK)
    assert ready == {"ready": True}
    assert "roles must alternate" in bad["error"]
    assert "\n" not in bad["error"]
    assert "segments" in good


def test_broken_models_are_named(tmp_path):
    write_model(tmp_path, "{% if %}")
    with pytest.raises(TemplateProblem, match="chat_template.jinja failed"):
        rendered(tmp_path, TALK)
    write_model(tmp_path, "{{ 'a' + messages[0].content[0].text }}")
    with pytest.raises(TemplateProblem, match="may want each content as a list"):
        rendered(tmp_path, TALK)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TemplateProblem, match="chat_template.jinja can't be read"):
        rendered(tmp_path, TALK)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TemplateProblem, match="not valid JSON"):
        rendered(tmp_path, TALK)


def spans(folder, row) -> list[str]:
    """What counts, without a process of its own; the text is transformers'."""
    renderer = render_chat.Renderer(folder)
    segments = renderer.segments(row)
    template = (folder / "chat_template.jinja").read_text()
    more = row.get("chat_template_kwargs") or {}
    (text,), _ = render_jinja_template(
        [row["messages"]],
        tools=row.get("tools"),
        chat_template=template,
        **{**render_chat.special_tokens(folder), **more},
    )
    assert "".join(s for s, _ in segments) == text
    return [s for s, counts in segments if counts]


def refusal(folder, row) -> str:
    with pytest.raises(TemplateProblem) as problem:
        spans(folder, row)
    return str(problem.value)


def said(*contents, **keys) -> list[dict]:
    """Questions and answers in turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": c, **keys} for i, c in enumerate(contents)]


def test_answers_of_a_template_that_rewrites_earlier_turns(tmp_path):
    write_model(tmp_path, THINKING)
    one = {"messages": said("Hi", "<think>hm</think> Hello")}
    assert spans(tmp_path, one) == ["<think>hm</think>Hello<|im_end|>\n"]
    many = said("Hi", "<think>hm</think> Hello", "And?", "Done.")
    assert spans(tmp_path, {"messages": many}) == [
        "Hello<|im_end|>\n",
        "<think></think>Done.<|im_end|>\n",
    ]
    # A question at the end, and two answers in a row.
    assert spans(tmp_path, {"messages": many[:3]}) == ["Hello<|im_end|>\n"]
    row = {"messages": [many[0], many[1], many[3]]}
    assert spans(tmp_path, row)[0] == "Hello<|im_end|>\n"
    # The header before the first message isn't the assistant's either.
    assert spans(tmp_path, {"messages": many[1:3]}) == ["Hello<|im_end|>\n"]
    # What asks for an answer follows the row's own options.
    row = {"messages": many[:2], "chat_template_kwargs": {"thinks": False}}
    assert spans(tmp_path, row) == ["<think>hm</think>Hello<|im_end|>\n"]
    row["messages"] = many[2:]
    assert spans(tmp_path, row) == ["Done.<|im_end|>\n"]


def test_what_asks_for_an_answer_is_not_part_of_it(tmp_path):
    """A template that begins the thought, which an answer's content may do too."""
    write_model(
        tmp_path,
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>{% endif %}",
    )
    row = {"messages": said("Hi", "<think>hm</think>Hello", "And?", "Done.")}
    assert spans(tmp_path, row) == ["hm</think>Hello<end>", "Done.<end>"]


def test_results_of_tools_do_not_count(tmp_path):
    write_model(tmp_path, CALLING, bos_token="<s>")
    call = {"function": {"name": "sum", "arguments": {}}}
    messages = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        {"role": "tool", "content": "four"},
        {"role": "assistant", "content": " 4. "},
        *said("And?", "Done."),
    ]
    assert spans(tmp_path, {"messages": messages}) == [
        "<call>sum</call>",
        "4.<end>",
        "Done.<end>",
    ]


def test_long_conversations_take_linear_time(tmp_path):
    """Two renderings: as long as transformers' own, not a rendering a turn."""
    write_model(tmp_path, THINKING)
    row = {"messages": said(*["What now? " * 5, "This and that. " * 5] * 400)}
    renderer = render_chat.Renderer(tmp_path)
    begin = time.process_time()
    assert sum(counts for _, counts in renderer.segments(row)) == 400
    assert time.process_time() - begin < 2


def test_rows_keep_their_order_and_digits(tmp_path):
    """The template sees what stands in the file, byte by byte."""
    write_model(tmp_path, THINKING)
    arguments = '{"z": 12345678901234567890123, "a": 1.0, "m": 1e-07, "b": null}'
    call = '{"function": {"name": "f", "arguments": %s}}' % arguments
    line = (
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", '
        '"content": "", "tool_calls": [%s]}], "tools": [{"t": 2, "a": 1}]}' % call
    )
    text = "".join(s for s, _ in render_chat.Renderer(tmp_path).segments(json.loads(line)))
    assert f'<call>{{"name": "f", "arguments": {arguments}}}</call>' in text
    assert '[{"t": 2, "a": 1}]' in text
    spans(tmp_path, json.loads(line))


def test_messages_left_out_of_training(tmp_path):
    for template in (CHATML, MARKED):
        write_model(tmp_path, template)
        for key, no, yes in (("weight", 0, 1), ("train", False, True)):
            messages = said("a", "one", "b", "two", "c", "three")
            messages[1][key], messages[3][key] = no, yes
            counts = spans(tmp_path, {"messages": messages})
            assert [c.split("<|")[0] for c in counts] == ["two", "three"]
        assert spans(tmp_path, {"messages": said("a", "b", weight=0)}) == []


@pytest.mark.parametrize(
    ("row", "why"),
    (
        ({"tools": [{"a": 1}]}, "no use for 'tools'"),
        ({"documents": [{"a": 1}]}, "no use for 'documents'"),
        ({"chat_template_kwargs": {"thinks": False}}, "no use for 'thinks'"),
        ({"chat_template_kwargs": {"tokenize": True}}, "'tokenize' can't stand"),
        ({"tools": 3}, "expected 'tools' to be a list"),
        ({"loss_mask": [1, 0]}, "'loss_mask' of a row of messages is not supported"),
        ({"system": "Be kind."}, "make it the first message"),
        ({"weight": 0.5}, "'weight' of a whole row is not supported"),
        ({"messages": said("a", "b", reasoning_content="c")}, "'reasoning_content'"),
        ({"messages": said("a", "b", tool_calls=[{"a": 1}])}, "leaves out 'tool_calls'"),
        ({"messages": said("a", "b", weight=0.5)}, "to be 0 or 1, found 0.5"),
        ({"messages": said("a", "b", train=True)}, "train on the role 'user'"),
        ({"messages": said("a", [{"type": "image"}])}, "a part of type 'image'"),
    ),
)
def test_what_has_no_effect_is_refused_by_name(tmp_path, row, why):
    write_model(tmp_path, CHATML)
    assert why in refusal(tmp_path, {"messages": said("a", "b"), **row})


def test_notes_of_the_owner_are_ignored(tmp_path):
    write_model(tmp_path, CHATML)
    row = {"id": 7, "source": "x", "tools": None, "images": [], "weight": 1}
    messages = said("a", "b", name="n", tool_calls=None, id=3)
    assert spans(tmp_path, {"messages": messages, **row}) == ["b<|im_end|>\n"]


def test_a_template_for_tools(tmp_path):
    """The named template that transformers takes where a row has tools."""
    named = [{"name": "default", "template": CHATML}]
    named.append({"name": "tool_use", "template": "{{ tools | tojson }}" + CHATML})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    renderer = render_chat.Renderer(tmp_path)
    row = {"messages": said("a", "b")}
    assert renderer.segments(row)[0][0].startswith("<|im_start|>")
    assert renderer.segments({**row, "tools": [{"f": 1}]})[0][0].startswith('[{"f": 1}]')


def test_a_template_that_leaves_out_contents_is_named(tmp_path):
    parts = "{% for m in messages %}{{ m.role }}:" + (
        "{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}"
    )
    write_model(tmp_path, parts)
    assert "leaves out the content of message 2" in refusal(
        tmp_path, {"messages": said("question", "answer")}
    )
    answer = [{"type": "text", "text": "answer"}]
    row = {"messages": said(answer, answer)}
    assert spans(tmp_path, row) == ["assistant:answer;"]


def test_a_template_that_hides_its_turns_is_named(tmp_path):
    """Marks inside a text that the template changes are no marks."""
    hiding = (
        "{% set all %}" + CHATML + "{% endset %}{{ all | upper | replace('0', 'O') }}"
    )
    write_model(tmp_path, hiding)
    long = said(*["question", "answer"] * 40)
    assert "doesn't tell what the assistant wrote" in refusal(tmp_path, {"messages": long})


def test_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(render_chat, "CPU_SECONDS", 1)
    endless = (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    write_model(tmp_path, endless)
    monkeypatch.setattr(render_chat.resource, "setrlimit", lambda *_: None)
    before = signal.signal(signal.SIGPROF, render_chat.out_of_time)
    try:
        with pytest.raises(TemplateProblem, match="more than 1 seconds"):
            renderer = render_chat.Renderer(tmp_path)
            render_chat.limited(renderer.segments, {"messages": TALK})
    finally:
        signal.signal(signal.SIGPROF, before)


def test_memory_surrogates_and_the_sandbox_are_bounds(tmp_path):
    """In a process of its own, which goes on after each."""
    greedy = (
        "{% if messages[0].content == 'eat' %}{{ 'x' * 9999999999 }}"
        "{% elif messages[0].content == 'leave' %}"
        "{{ messages.__class__.__mro__[1].__subclasses__() }}"
        "{% else %}" + CHATML + "{% endif %}"
    )
    write_model(tmp_path, greedy)
    talks = [said(text, "b") for text in ("eat", "leave", "\ud800", "fine")]
    _, eat, leave, half, fine = ask(tmp_path, *talks)
    assert "more than 4 GiB" in eat["error"]
    assert "SecurityError" in leave["error"]
    assert "surrogates" in half["error"]
    assert fine["segments"][-1] == ["b<|im_end|>\n", True]


def test_the_helper_ends_with_its_reader(tmp_path):
    """Also while a template runs."""
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    write_model(tmp_path, loop)
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        [sys.executable, SCRIPT, tmp_path], stdin=theirs, stdout=theirs
    ) as helper:
        theirs.close()
        assert b"ready" in ours.recv(100)
        ours.sendall(json.dumps({"messages": TALK}).encode() + b"\n")
        time.sleep(0.5)
        ours.close()
        assert helper.wait(timeout=30) == 1


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
