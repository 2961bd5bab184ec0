# SPDX-License-Identifier: Apache-2.0
"""Many clients at once on `fettle serve`: is every answer whole, and the one
that its request gets alone? Prints JSON; exit status 1 where one is not.

    python tests/bench/serve_load.py [MODEL] [--clients 64] [--requests 1000]
        [--abort-share 0.2] [--context 256] [--parallel 8] [--queue 32]
        [--threads 2] [--seed 1]

Completions and chats, whole and streamed, greedy and drawn by a seed, one or
two answers, with and without a stop; some clients close their connection at a
moment of their own. The server gets the least --ram that it takes. Where the
queue is full, clients wait as Retry-After says. MODEL is the bundled demo model
where none is named.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

import build_folder
import server_client

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo" / "model"
WORDS = ("Tom has three apples and Ann four how many do they share in all "
         "before the ship sails west with wind").split()


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path, nargs="?", default=DEMO)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--abort-share", type=float, default=0.2)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def least_ram(model, arguments):
    """MiB, as the server's refusal of too little names them."""
    done = subprocess.run(
        [build_folder.find("fettle"), "serve", model, "--port", "0", "--ram",
         "1MiB", *arguments], capture_output=True, text=True, check=False)
    return int(re.search(r"smallest that works is (\d+)MiB", done.stderr)[1])


def drawn_request(rng):
    """Path and body of a request whose answer is the same each time."""
    text = " ".join(rng.choices(WORDS, k=rng.randint(3, 40)))
    body = {"max_tokens": rng.randint(4, 48), "n": rng.choice([1, 1, 1, 2]),
            "temperature": rng.choice([0, 0.8]), "seed": rng.randint(0, 9)}
    if rng.random() < 0.3:
        body["stop"] = [rng.choice([".", " the", "\n"])]
    if rng.random() < 0.5:
        return "/v1/completions", dict(body, prompt=text)
    messages = [{"role": "user", "content": text}]
    return "/v1/chat/completions", dict(body, messages=messages)


def text_of(choice):
    """What a choice of a whole answer, or of a chunk, adds."""
    if "text" in choice:
        return choice["text"]
    return choice.get("message", choice.get("delta", {})).get("content") or ""


class Answer:
    """Texts and reasons to end by choice, and seconds; or a refusal."""

    def __init__(self):
        self.begin = time.perf_counter()
        self.texts, self.ends = {}, {}
        self.first = self.whole = None
        self.retry_after = None

    def add(self, payload):
        for choice in payload["choices"]:
            place = choice["index"]
            more = text_of(choice)
            if more and self.first is None:
                self.first = time.perf_counter() - self.begin
            self.texts[place] = self.texts.get(place, "") + more
            if choice.get("finish_reason"):
                self.ends[place] = choice["finish_reason"]

    def result(self):
        return sorted(self.texts.items()), sorted(self.ends.items())


def ask(server, path, body, stream):
    answer = Answer()
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    link.request("POST", path, json.dumps(dict(body, stream=stream)),
                 {"Content-Type": "application/json"})
    reply = link.getresponse()
    if reply.status == 429:
        answer.retry_after = int(reply.headers["Retry-After"])
    elif reply.status != 200:
        raise RuntimeError(f"{reply.status}: {reply.read().decode()}")
    elif stream:
        done = False
        for line in reply:
            data = line.decode().strip().removeprefix("data: ")
            done = done or data == "[DONE]"
            if data and data != "[DONE]":
                answer.add(json.loads(data))
        if not done:
            raise RuntimeError("a stream ended without [DONE]")
    else:
        answer.add(json.loads(reply.read()))
    answer.whole = time.perf_counter() - answer.begin
    link.close()
    return answer


def go_away(server, path, body, rng):
    """Closes the connection within a second, whatever came until then."""
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    link.request("POST", path, json.dumps(
        dict(body, stream=True, max_tokens=120, stop=None)),
        {"Content-Type": "application/json"})
    time.sleep(rng.random())
    link.close()


class Load:
    def __init__(self, server, options):
        self.server = server
        self.options = options
        rng = random.Random(options.seed)
        self.kinds = [drawn_request(rng) for _ in range(100)]
        self.alone = [ask(server, path, body, False).result()
                      for path, body in self.kinds]
        self.retries = 0
        self.first, self.whole = [], []

    def one(self, index):
        """None, "gone", or what is wrong with the answer."""
        rng = random.Random(self.options.seed * 1_000_003 + index)
        place = rng.randrange(len(self.kinds))
        path, body = self.kinds[place]
        if rng.random() < self.options.abort_share:
            go_away(self.server, path, body, rng)
            return "gone"
        stream = rng.random() < 0.5
        while True:
            answer = ask(self.server, path, body, stream)
            if answer.retry_after is None:
                break
            self.retries += 1
            time.sleep(answer.retry_after)
        if stream and answer.first is not None:
            self.first.append(answer.first)
        self.whole.append(answer.whole)
        if answer.result() == self.alone[place]:
            return None
        return f"{path} {json.dumps(body)}: {answer.result()}"

    def run(self):
        with concurrent.futures.ThreadPoolExecutor(self.options.clients) as pool:
            return list(pool.map(self.one, range(self.options.requests)))


def metric(text, name):
    return int(re.search(rf"^fettle_{name} (\d+)$", text, re.MULTILINE)[1])


def metrics(server):
    link = http.client.HTTPConnection("127.0.0.1", server.port)
    link.request("GET", "/metrics")
    text = link.getresponse().read().decode()
    link.close()
    return text


def at_rest(server):
    """The metrics, once the server has noticed that nobody waits."""
    for _ in range(100):
        text = metrics(server)
        if metric(text, "answers_in_work") == 0:
            return text
        time.sleep(0.1)
    raise RuntimeError("answers are still in work, and nobody waits for them")


def percentiles(seconds):
    parts = statistics.quantiles(seconds, n=100)
    return {"median": parts[49], "p95": parts[94], "p99": parts[98]}


def main():
    options = arguments()
    given = ["--context", str(options.context), "--parallel",
             str(options.parallel), "--queue", str(options.queue), "--threads",
             str(options.threads)]
    ram = least_ram(options.model, given)
    with server_client.Server(
            options.model, [*given, "--ram", f"{ram}MiB"]) as server:
        load = Load(server, options)
        before = metrics(server)
        begin = time.perf_counter()
        found = load.run()
        seconds = time.perf_counter() - begin
        after = at_rest(server)
    wrong = [one for one in found if one not in (None, "gone")]
    tokens = metric(after, "new_tokens_total") - metric(before, "new_tokens_total")
    print(json.dumps({
        "clients": options.clients, "requests": options.requests,
        "whole": found.count(None), "gone": found.count("gone"),
        "wrong": wrong[:5], "retries": load.retries,
        "abandoned": metric(after, "abandoned_total"),
        "seconds": seconds, "tokens_per_second": tokens / seconds,
        "first_token_seconds": percentiles(load.first),
        "whole_seconds": percentiles(load.whole),
        "ram_bytes": ram << 20, "peak_bytes": server.peak_bytes}, indent=2))
    sys.exit(1 if wrong or server.peak_bytes > ram << 20 else 0)


if __name__ == "__main__":
    main()
