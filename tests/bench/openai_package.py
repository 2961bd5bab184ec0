# SPDX-License-Identifier: Apache-2.0
"""The `openai` package (requirements.txt) as a client of `fettle serve`. Prints
one line for each thing asked; exit status 1 where one is not as it should be.

    python tests/bench/openai_package.py [MODEL]

MODEL, the bundled demo model where none is named, needs a chat template.
"""

import pathlib
import sys

import openai
import server_client

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo" / "model"
CHAT = [{"role": "user", "content": "What is 2 plus 3?"}]
GREEDY = {"model": "any", "max_tokens": 24, "temperature": 0}


def whole_chat(client, **more):
    return client.chat.completions.create(
        **{**GREEDY, "messages": CHAT, **more})


def models(client):
    return [model.id for model in client.models.list()] == ["any"]


def chat(client):
    answer = whole_chat(client)
    return (answer.choices[0].message.role == "assistant"
            and len(answer.choices[0].message.content) > 0
            and answer.usage.completion_tokens <= 24)


def streamed_chat(client):
    chunks = list(whole_chat(client, stream=True,
                             stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or ""
                   for chunk in chunks if chunk.choices)
    whole = whole_chat(client)
    return (text == whole.choices[0].message.content
            and chunks[-1].usage == whole.usage)


def streamed_helper(client):
    with client.chat.completions.stream(**GREEDY, messages=CHAT) as events:
        try:
            answer = events.get_final_completion()
        except openai.LengthFinishReasonError as cut:
            answer = cut.completion
    return (answer.choices[0].message.content
            == whole_chat(client).choices[0].message.content)


def several_and_seed(client):
    drawn = {"temperature": 0.9, "n": 3, "seed": 7}
    first, second = (
        [choice.message.content for choice in whole_chat(client, **drawn).choices]
        for _ in range(2))
    return first == second and len(set(first)) > 1


def stop(client):
    text = whole_chat(client).choices[0].message.content
    word = text.split()[1]
    answer = whole_chat(client, stop=[word]).choices[0]
    return (answer.message.content == text[:text.index(word)]
            and answer.finish_reason == "stop")


def log_probabilities(client):
    answer = whole_chat(client, logprobs=True, top_logprobs=3).choices[0]
    rows = answer.logprobs.content
    return ("".join(row.token for row in rows) == answer.message.content
            and all(len(row.top_logprobs) == 3 and
                    row.logprob == max(t.logprob for t in row.top_logprobs)
                    for row in rows))


def completion(client):
    answer = client.completions.create(
        **GREEDY, prompt=["Tom has 3", "Ann has 4"], logprobs=2, echo=True)
    return ([choice.text.split(" has")[0] for choice in answer.choices]
            == ["Tom", "Ann"]
            and answer.choices[0].logprobs.token_logprobs[0] is None)


def known_beginning(client):
    long = [{"role": "user", "content": "How many are there? " * 70}]
    whole_chat(client, messages=long)
    usage = whole_chat(client, messages=long).usage
    return usage.prompt_tokens_details.cached_tokens > 0


def closed_stream(client):
    events = whole_chat(client, stream=True, max_tokens=200)
    next(iter(events))
    events.close()
    return chat(client)


def refused(error, **body):
    def ask(client):
        try:
            whole_chat(client, **body)
        except error as found:
            return len(str(found)) > 0
        return False
    return ask


def wrong_model(client):
    try:
        whole_chat(client, model="another")
    except openai.NotFoundError:
        return True
    return False


ASKED = {
    "models.list": models,
    "chat.completions.create": chat,
    "stream=True is what is made at once": streamed_chat,
    "chat.completions.stream": streamed_helper,
    "n, and the same by seed": several_and_seed,
    "stop": stop,
    "logprobs": log_probabilities,
    "completions.create of several prompts, with echo": completion,
    "cached_tokens": known_beginning,
    "a stream closed at its first token": closed_stream,
    "BadRequestError: a field that isn't there": refused(
        openai.BadRequestError, extra_body={"best_of": 2}),
    "BadRequestError: beyond the context": refused(
        openai.BadRequestError, max_tokens=100_000),
    "BadRequestError: another format": refused(
        openai.BadRequestError, response_format={"type": "json_object"}),
    "NotFoundError: another model": wrong_model,
}


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else DEMO
    failed = 0
    with server_client.Server(model, ["--context", "1024"]) as server:
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none",
            max_retries=0)
        for name, ask in ASKED.items():
            as_it_should = bool(ask(client))
            failed += not as_it_should
            print(f"{'as it should' if as_it_should else 'NOT'}: {name}")
    print(f"openai {openai.__version__}: {len(ASKED) - failed} of {len(ASKED)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
