# SPDX-License-Identifier: Apache-2.0
"""generate, chat and eval --generate as a person uses them, on the bundled
model."""

import json
import os
import signal
import subprocess

import pytest
from conftest import MODEL

PROMPT = "Question: Tom has 3"


def made(fettle, *options, **more):
    done = fettle("generate", MODEL, "--quiet", "--json", "-", *options, **more)
    assert done.status == 0, done.err
    return json.loads(done.out)


def test_the_prompt_comes_from_anywhere(fettle, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT)
    few = ("--max-new-tokens", 8)
    given = made(fettle, "--prompt", PROMPT, *few)
    assert made(fettle, "--prompt-file", file, *few)["ids"] == given["ids"]
    assert made(fettle, *few, input=PROMPT)["ids"] == given["ids"]
    assert given["finish"] == "length" and given["tokens"] == 8
    for options, status, message in (
        (("--prompt", "a", "--prompt-file", file), 2, "no place beside"),
        (("--prompt-file", tmp_path / "none"), 1, "no such file"),
        (("--prompt", "a", "--system", "b"), 2, "no effect without --chat"),
        (("--prompt", "a", "--top-k", 3), 2, "no effect without --temp"),
        (("--prompt", ""), 1, "holds no token"),
    ):
        refused = fettle("generate", MODEL, *options)
        assert refused.status == status and message in refused.err


def test_text_is_printed_as_it_is_made_up_to_a_stop_string(fettle):
    few = ("--prompt", PROMPT, "--max-new-tokens", 40)
    whole = made(fettle, *few)["text"]
    printed = fettle("generate", MODEL, "--quiet", *few)
    assert printed.out.startswith(whole + "\n40 tokens, ")
    stop = whole[20:24]
    stopped = made(fettle, *few, "--stop", stop, "--stop", "no such text")
    assert stopped["text"] == whole[: whole.index(stop)]
    assert stopped["finish"] == "stop" and stopped["tokens"] < 40
    # What stands behind the one text is the model.
    first = fettle("generate", "--stop", stop, MODEL, "--quiet", *few)
    assert first.out.startswith(stopped["text"] + "\n")


def test_options_of_sampling_count(fettle):
    warm = ("--prompt", PROMPT, "--max-new-tokens", 12, "--temperature", 1.5)
    seeded = made(fettle, *warm, "--seed", 4)
    assert made(fettle, *warm, "--seed", 4)["ids"] == seeded["ids"]
    assert made(fettle, *warm, "--seed", 5)["ids"] != seeded["ids"]
    likeliest = made(fettle, *warm[:4])["ids"]
    for narrow in (("--top-k", 1), ("--top-p", 0), ("--min-p", 1)):
        assert made(fettle, *warm, *narrow)["ids"] == likeliest
    for penalty in ("--presence-penalty", "--frequency-penalty"):
        distinct = made(fettle, *warm[:4], penalty, 100)["ids"]
        assert len(set(distinct)) == len(distinct)
    assert made(fettle, *warm[:4], "--repetition-penalty", 50)["ids"] != likeliest


def test_logprobs_are_listed(fettle):
    listed = made(fettle, "--prompt", PROMPT, "--max-new-tokens", 3, "--logprobs", 2)
    for id, place in zip(listed["ids"], listed["logprobs"], strict=True):
        assert place["id"] == id and place["log_prob"] <= 0
        first, second = place["likeliest"]
        assert first == {"id": id, "log_prob": place["log_prob"]}
        assert second["log_prob"] <= first["log_prob"]
    assert len(listed["logprobs"]) == 3


def test_the_first_signal_ends_it_in_good_order(program):
    running = subprocess.Popen(
        [program, "generate", MODEL, "--prompt", "The", "--max-new-tokens", "1000",
         "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    first = running.stdout.read(1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert first and " tokens/s" in out.splitlines()[-1]
    assert running.returncode == 128 + signal.SIGINT
    assert "once more ends at once" in err


def test_a_question_goes_through_the_chat_template(fettle):
    few = ("--max-new-tokens", 8)
    asked = made(fettle, "--chat", "--system", "Be.", "--prompt", "Why?", *few)
    by_hand = made(
        fettle, "--prompt",
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n",
        *few,
    )
    assert asked["ids"] == by_hand["ids"]
    assert asked["prompt_tokens"] == by_hand["prompt_tokens"]


def test_a_conversation(fettle, tmp_path):
    saved = tmp_path / "said.jsonl"
    options = ("chat", MODEL, "--quiet", "--max-new-tokens", 5, "--system", "Be.")
    done = fettle(*options, input=f"Hi\n/reset\nWhy?\n\nSo?\n/save {saved}\n/what\n")
    assert done.status == 0, done.err
    messages = json.loads(saved.read_text())["messages"]
    said = [(m["role"], m["content"]) for m in messages if m["role"] != "assistant"]
    assert said == [("system", "Be."), ("user", "Why?"), ("user", "So?")]
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert len(answers) == 2
    for answer in answers:
        assert answer + "\n" in done.out
    assert "/reset" in done.err and "saved to" in done.err
    # Each answer is the one that generate gives to all that was said.
    listed = fettle(*options, "--json", "-", input="Why?\nSo?\n/exit\nNo\n")
    assert json.loads(listed.out)["messages"] == messages


def test_a_signal_ends_an_answer_and_not_the_conversation(program, tmp_path):
    saved = tmp_path / "said.jsonl"
    running = subprocess.Popen(
        [program, "chat", MODEL, "--context", "1000", "--max-new-tokens", "900",
         "--temperature", "5", "--quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    running.stdin.write("Hi\n")
    running.stdin.flush()
    running.stdout.read(1)
    running.send_signal(signal.SIGINT)
    running.communicate(f"/save {saved}\n", timeout=60)
    assert running.returncode == 0
    roles = [m["role"] for m in json.loads(saved.read_text())["messages"]]
    assert roles == ["user", "assistant"]


def test_a_conversation_that_grows_too_long_goes_on(fettle):
    done = fettle("chat", MODEL, "--quiet", "--context", 30, "--max-new-tokens", 4,
                  "--json", "-", input="word " * 40 + "\nHi\n")
    assert done.status == 0, done.err
    assert "--context is 30" in done.err
    messages = json.loads(done.out)["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"]


@pytest.fixture
def sums(tmp_path):
    """Questions whose answers the model writes."""
    file = tmp_path / "sums.jsonl"
    rows = [{"prompt": p, "completion": c} for p, c in (
        ("Question: 2 + 3\nAnswer:", " The answer is 5."),
        ("Question: Tom has 4 apples and buys 3. How many has he?\nAnswer:",
         " The answer is 7."),
        ("A", " is 1."),
        ("Question: 7 + 2\nAnswer:", " The answer is 9."),
    )]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_answers_are_found_and_compared(fettle, sums, tmp_path):
    rows = tmp_path / "rows.jsonl"
    options = ("eval", MODEL, "--generate", sums, "--pattern", r"is (\d+)",
               "--max-new-tokens", 40, "--quiet")
    done = fettle(*options, "--rows", rows, "--json", "-")
    assert done.status == 0, done.err
    result = json.loads(done.out)["generate"]
    listed = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["reference"] for row in listed] == ["5", "7", "1", "9"]
    right = sum(row["right"] for row in listed)
    assert result["files"][0]["exact_match"] == right / 4
    assert result["all"]["unmatched"] == sum(row["answer"] is None for row in listed)
    for row in listed:
        assert row["right"] == (row["answer"] == row["reference"])
        assert row["answer"] is None or f"is {row['answer']}" in row["output"]
    # As generate writes it.
    alone = made(fettle, "--prompt", "A", "--max-new-tokens", 40)
    assert listed[2]["ids"] == alone["ids"] and listed[2]["output"] == alone["text"]
    table = fettle(*options, "--limit", 3, "--parallel", 2, "--stop", "is").out
    assert "sums.jsonl" in table and "exact match" in table
    shot = tmp_path / "shot.jsonl"
    shot.write_text(sums.read_text().splitlines()[0] + "\n")
    again = fettle(*options, "--limit", 1, "--rows", rows, "--shots", 1,
                   "--shots-from", shot)
    assert again.status == 0, again.err
    shown = json.loads(rows.read_text())
    talk = fettle(*options, "--limit", 1, "--rows", rows, "--chat")
    assert talk.status == 0, talk.err
    asked = made(fettle, "--chat", "--prompt", "Question: 2 + 3\nAnswer:",
                 "--max-new-tokens", 40)
    assert json.loads(rows.read_text())["ids"] == asked["ids"]
    text = "Question: 2 + 3\nAnswer: The answer is 5.\n\nQuestion: 2 + 3\nAnswer:"
    assert shown["ids"] == made(fettle, "--prompt", text, "--max-new-tokens", 40)["ids"]


@pytest.mark.parametrize("options, status, message", [
    (("--pattern", "("), 1, "does not compile"),
    (("--pattern", "no such"), 1, "finds no answer in its own solution"),
    (("--max-new-tokens", 5000), 1, "leaves no room for a question"),
    (("--match", "last"), 2, "no effect without --pattern"),
    (("--choices", MODEL / "config.json", "--rows", "x"), 2, "runs of their own"),
])
def test_questions_that_cannot_be_asked(fettle, sums, options, status, message):
    refused = fettle("eval", MODEL, "--generate", sums, *options)
    assert refused.status == status and message in refused.err, refused.err


def test_options_of_answers_need_questions(fettle):
    refused = fettle("eval", MODEL, "--pattern", "a")
    assert refused.status == 2 and "needs --data, --choices" in refused.err
