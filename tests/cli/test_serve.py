# SPDX-License-Identifier: Apache-2.0
"""The server as its clients see it, on the bundled model."""

import concurrent.futures
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess

import pytest
from conftest import MODEL

PROMPT = "Question: Tom has 3"
CHAT = [{"role": "user", "content": "What is 2 plus 3?"}]


class Server:
    def __init__(self, program, *options, model=MODEL):
        self.process = subprocess.Popen(
            [program, "serve", model, "--port", "0", "--alias", "demo",
             *map(str, options)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=dict(os.environ, OMP_WAIT_POLICY="passive"))
        line = self.process.stdout.readline()
        found = re.match(r"listening on http://127\.0\.0\.1:(\d+)/v1 as demo",
                         line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])

    def ask(self, path, body=None, method=None, headers=()):
        """Status and headers and text of an answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        link.request(method or ("GET" if body is None else "POST"), path, body,
                     dict(headers, **{"Content-Type": "application/json"}))
        answer = link.getresponse()
        text = answer.read().decode()
        link.close()
        return answer.status, answer.headers, text

    def json(self, path, body=None):
        status, _, text = self.ask(path, body)
        assert status == 200, text
        return json.loads(text)

    def events(self, path, body):
        status, headers, text = self.ask(path, dict(body, stream=True))
        assert status == 200 and "event-stream" in headers["Content-Type"]
        lines = [e.removeprefix("data: ") for e in text.strip().split("\n\n")]
        assert lines.pop() == "[DONE]"
        return [json.loads(line) for line in lines]

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return out


@pytest.fixture(scope="module")
def server(program):
    server = Server(program, "--context", 160, "--parallel", 4, "--queue", 40)
    yield server
    assert "requests" in server.end()


def greedy(tokens, **more):
    return {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, **more}


def test_what_is_served_is_what_generate_makes(server, fettle):
    made = fettle("generate", MODEL, "--quiet", "--json", "-", "--prompt",
                  PROMPT, "--max-new-tokens", 24)
    text = json.loads(made.out)["text"]
    answer = server.json("/v1/completions", greedy(24, model="demo"))
    assert answer["choices"][0]["text"] == text
    assert answer["usage"]["completion_tokens"] == 24
    chunks = server.events("/v1/completions", greedy(24))
    assert "".join(c["choices"][0]["text"] for c in chunks) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert len(chunks) > 8
    echo = server.json("/v1/completions", greedy(24, echo=True))
    assert echo["choices"][0]["text"] == PROMPT + text


def test_an_echo_has_the_prompts_log_probabilities(server):
    """As lm-eval asks for them: each is what the token has as a next one."""
    ids = server.json("/tokenize", {"prompt": PROMPT})["tokens"]
    whole = server.json("/v1/completions", greedy(
        0, prompt=ids, echo=True, logprobs=1))["choices"][0]
    assert whole["text"] == PROMPT
    values = whole["logprobs"]["token_logprobs"]
    assert len(values) == len(ids) and values[0] is None
    for i in range(1, len(ids)):
        one = server.json("/v1/completions", greedy(
            1, prompt=ids[:i], logprobs=20))["choices"][0]["logprobs"]
        token = whole["logprobs"]["tokens"][i]
        if token in one["top_logprobs"][0]:
            assert abs(one["top_logprobs"][0][token] - values[i]) < 1e-4
        best = max(one["top_logprobs"][0].values())
        top = whole["logprobs"]["top_logprobs"][i]
        assert abs(max(top.values()) - best) < 1e-4


def test_a_chat_is_rendered_by_the_models_template(server):
    body = {"messages": CHAT, "max_tokens": 12, "temperature": 0}
    answer = server.json("/v1/chat/completions", body)
    text = answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["message"]["role"] == "assistant" and text
    chunks = server.events(
        "/v1/chat/completions",
        dict(body, stream_options={"include_usage": True}))
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(d.get("content", "") for d in deltas) == text
    assert chunks[-1]["usage"] == answer["usage"]


def test_what_is_beside_it(server):
    assert server.json("/health") == {"status": "ok"}
    models = server.json("/v1/models")["data"]
    assert [m["id"] for m in models] == ["demo"]
    ids = server.json("/tokenize", {"prompt": PROMPT})["tokens"]
    assert server.json("/detokenize", {"tokens": ids})["prompt"] == PROMPT
    by_ids = server.json("/v1/completions", greedy(6, prompt=ids))
    by_text = server.json("/v1/completions", greedy(6))
    assert by_ids["choices"] == by_text["choices"]
    many = server.json("/v1/completions", greedy(6, prompt=[PROMPT, ids], n=2))
    assert [c["index"] for c in many["choices"]] == [0, 1, 2, 3]
    assert {c["text"] for c in many["choices"]} == {
        by_text["choices"][0]["text"]}
    status, _, text = server.ask("/metrics")
    assert status == 200 and "fettle_requests_total " in text


def test_bad_requests_are_refused_and_disturb_nobody(server):
    for body, status, word in (
        (b"{", 400, "request"),
        (b'{"prompt": "\xff"}', 400, "request"),
        (b"[" * 100_000, 400, "request"),
        (b" " * (17 << 20), 413, "too large"),
        (greedy(4, temperature="hot"), 400, "temperature"),
        (greedy(4, stop=["x"] * 10_000), 400, "stop"),
        (greedy(4, model="gpt-4"), 404, "gpt-4"),
        (greedy(1000), 400, "160 tokens"),
        (greedy(4, grammar="x"), 400, "grammar"),
    ):
        got, _, text = server.ask("/v1/completions", body)
        assert got == status, text
        assert word in json.loads(text)["error"]["message"]
    bad_chat = {"messages": [{"role": "user", "content": [{"type": "image"}]}]}
    assert server.ask("/v1/chat/completions", bad_chat)[0] == 400
    assert server.ask("/v1/nothing", {})[0] == 404
    assert server.ask("/v1/completions")[0] == 404
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"\x00\xff garbage\r\n\r\n")
        assert raw.recv(12).startswith(b"HTTP/1.1 400")
    assert server.json("/v1/completions", greedy(2))["choices"]


def test_many_clients_at_once_lose_and_mix_up_nothing(server):
    """Each answer is that of its request alone; some clients go away."""
    bodies = [
        {"prompt": f"Question: Tom has {i % 7} apples", "seed": i % 5,
         "max_tokens": 3 + 5 * (i % 6), "temperature": 0.8}
        for i in range(60)
    ]
    alone = {}
    for body in bodies:
        key = json.dumps(body)
        if key not in alone:
            alone[key] = server.json("/v1/completions", body)["choices"]

    def go_away(body):
        link = http.client.HTTPConnection("127.0.0.1", server.port)
        link.request("POST", "/v1/completions",
                     json.dumps(dict(body, max_tokens=140, stream=True)))
        link.getresponse().read(10)
        link.close()

    def one(index):
        body = bodies[index]
        if index % 5 == 4:
            go_away(body)
            return True
        while True:
            status, headers, text = server.ask("/v1/completions", body)
            if status != 429:
                break
            assert int(headers["Retry-After"]) > 0
        return json.loads(text)["choices"] == alone[json.dumps(body)]

    order = list(range(60))
    random.Random(1).shuffle(order)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, order))
    text = server.ask("/metrics")[2]
    assert int(re.search(r"abandoned_total (\d+)\n", text)[1]) > 0
    assert "fettle_answers_in_work 0\n" in text


def test_keys_ends_and_wrong_places(program, fettle, tmp_path):
    key = tmp_path / "key"
    key.write_text("secret\n")
    server = Server(program, "--api-key-file", key, "--context", 120,
                    "--parallel", 1, "--queue", 0)
    assert server.ask("/v1/models")[0] == 401
    assert server.ask("/health")[0] == 200
    with_key = {"Authorization": "Bearer secret"}
    assert server.ask("/v1/models", headers=with_key)[0] == 200
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(server.ask, "/v1/completions",
                              greedy(100, ignore_eos=True), None,
                              with_key)
        while "in_work 1" not in server.ask("/metrics", headers=with_key)[2]:
            assert not running.done()
        taken = fettle("serve", MODEL, "--port", server.port)
        assert taken.status == 1 and "can't be listened on" in taken.err
        server.end()
        status, _, text = running.result()
    assert status == 200
    assert json.loads(text)["usage"]["completion_tokens"] == 100
    key.write_text("\n")
    empty = fettle("serve", MODEL, "--port", 0, "--api-key-file", key)
    assert empty.status == 1 and "holds no key" in empty.err


def test_packed_weights_and_known_beginnings(program, fettle, tmp_path):
    """Activations as int8: a request has its bits alone, in a crowd, and behind
    a beginning that was read before."""
    packed = tmp_path / "packed"
    done = fettle("quant", MODEL, "--bits", "int4", "--attention", "int8",
                  "--method", "rtn", "--out", packed, "--quiet")
    assert done.status == 0, done.err
    server = Server(program, "--activations", "int8", "--context", 600,
                    "--parallel", 6, model=packed)
    some = [int(i) for i in random.Random(2).choices(range(9, 400), k=580)]
    bodies = [greedy(5, prompt=some[:n] + [n], logprobs=3)
              for n in (3, 300, 40, 579, 8, 5)]

    def answer(body):
        answer = server.json("/v1/completions", body)
        known = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return answer["choices"], known
    alone = [answer(body) for body in bodies]
    assert [known for _, known in alone] == [0, 0, 0, 256, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        together = list(pool.map(answer, bodies))
    assert [known for _, known in together] == [0, 256, 0, 512, 0, 0]
    assert [c for c, _ in together] == [c for c, _ in alone]
    text = server.ask("/metrics")[2]
    assert "fettle_known_prompt_tokens_total 1024\n" in text
    server.end()
