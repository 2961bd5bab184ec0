# SPDX-License-Identifier: Apache-2.0
"""A `fettle serve` of its own for a bench, and seconds of its answers."""

import concurrent.futures
import http.client
import json
import os
import re
import subprocess
import time

import build_folder


class Server:
    def __init__(self, folder, arguments):
        self.command = [str(build_folder.find("fettle")), "serve", str(folder),
                        "--port", "0", "--alias", "any", "--quiet", *arguments]
        self.peak_bytes = None

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True)
        line = self.process.stdout.readline()
        self.port = int(re.search(r":(\d+)/v1", line).group(1))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        _, _, usage = os.wait4(self.process.pid, 0)
        self.peak_bytes = usage.ru_maxrss * 1024

    def post(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", path, json.dumps(body),
                           {"Content-Type": "application/json"})
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        connection.close()
        if reply.status != 200:
            raise RuntimeError(answer)
        return answer

    def timed(self, prompts, tokens):
        """Seconds until all prompts, asked at once, have so many tokens."""
        def ask(prompt):
            answer = self.post("/v1/completions", {
                "model": "any", "prompt": prompt, "max_tokens": tokens,
                "temperature": 0, "ignore_eos": True})
            return answer["usage"]["completion_tokens"]
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            begin = time.perf_counter()
            made = list(pool.map(ask, prompts))
            seconds = time.perf_counter() - begin
        if made != [tokens] * len(prompts):
            raise RuntimeError(f"expected {tokens} tokens of each, found {made}")
        return seconds
