# SPDX-License-Identifier: Apache-2.0
"""Times eval, tune and generate with nothing beside them and beside busy
neighbours, and tells which part of their fair share they reach. The fair share
is what the kernel's scheduler gives to as many threads that never wait for one
another: their processor time, measured the same way beside the same
neighbours. Programs and commands take turns in both states. Prints JSON.

    python tests/bench/busy_machine.py MODEL --data HELD.jsonl
        [--neighbours 4] [--threads 2] [--rounds 5]
        [--programs build/cpu/fettle OTHER/fettle]  # default: the built one
        [--set OMP_WAIT_POLICY=active]  # in their environment

`share` is (tokens/s beside the neighbours / tokens/s alone) / (processor time
beside the neighbours / alone), and `…_against_first` the speed against the first
program's in the same round, of each the median of the rounds' own ratios: other
work on the machine comes and goes.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import build_folder

PROMPT = "The experts that matter least are"


def spin(until):
    while time.time() < until:
        pass


def job(until, used):
    spin(until)
    used.put(time.process_time())


class Neighbours:
    """Processes that never sleep."""

    def __init__(self, count):
        forever = time.time() + 1e6
        self.processes = [
            multiprocessing.Process(target=spin, args=(forever,), daemon=True)
            for _ in range(count)]

    def __enter__(self):
        for process in self.processes:
            process.start()
        time.sleep(0.2)

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.join()


def plain_share(threads, seconds=1.5):
    """Processor time a second that each of `threads` plain jobs gets."""
    used = multiprocessing.Queue()
    until = time.time() + 0.1 + seconds
    jobs = [multiprocessing.Process(target=job, args=(until, used))
            for _ in range(threads)]
    for process in jobs:
        process.start()
    total = sum(used.get() for _ in jobs)
    for process in jobs:
        process.join()
    return total / seconds / threads


def commands(options, folder):
    common = ["--threads", options.threads, "--quiet"]
    return {
        "eval": [options.model, "--data", *options.data, *common],
        "tune": [options.model, "--data", *options.data, "--out",
                 folder / "tuned", "--steps", options.steps, "--seq-len", 256,
                 "--tokens-per-step", 4096, "--save-every", 0, *common],
        "generate": [options.model, "--prompt", PROMPT, "--max-new-tokens",
                     options.tokens, *common]}


def rate(options, name, program):
    """Tokens a second, as the command tells them: without start and loading."""
    environment = dict(os.environ, **options.environment)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        report = folder / "result.json"
        arguments = [program, name, *commands(options, folder)[name],
                     "--json", report]
        subprocess.run([str(a) for a in arguments], check=True,
                       env=environment, stdout=subprocess.DEVNULL)
        return json.loads(report.read_text())["tokens_per_second"]


def one_round(options):
    measured = {}
    for state, count in (("alone", 0), ("beside", options.neighbours)):
        with Neighbours(count):
            plain = [plain_share(options.threads)]
            rates = {}
            for name in options.commands:
                for program in options.programs:
                    rates[name, program] = rate(options, name, program)
                plain.append(plain_share(options.threads))
            measured[state] = {"plain": statistics.mean(plain), "rates": rates}
    return measured


def summary(options, rounds):
    def spread(values):
        return {"median": round(statistics.median(values), 3),
                "least": round(min(values), 3), "most": round(max(values), 3)}

    def plain(state):
        return [r[state]["plain"] for r in rounds]

    fair = [b / a for a, b in zip(plain("alone"), plain("beside"))]
    result = {"plain_alone": spread(plain("alone")),
              "plain_beside": spread(plain("beside")), "commands": {}}
    for name in options.commands:
        rows = result["commands"][name] = {}
        for program in options.programs:
            def rates(state, of=program, name=name):
                return [r[state]["rates"][name, of] for r in rounds]

            def ratio(state):
                return spread([a / b for a, b in zip(
                    rates(state), rates(state, options.programs[0]))])

            rows[program] = {
                "tokens_per_second_alone": spread(rates("alone")),
                "tokens_per_second_beside": spread(rates("beside")),
                "share": spread([b / a / f for a, b, f in zip(
                    rates("alone"), rates("beside"), fair)]),
                "alone_against_first": ratio("alone"),
                "beside_against_first": ratio("beside")}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--neighbours", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--commands", nargs="+",
                        default=["eval", "tune", "generate"])
    parser.add_argument("--programs", nargs="+")
    options = parser.parse_args()
    options.programs = options.programs or [str(build_folder.find("fettle"))]
    options.environment = dict(item.split("=", 1) for item in options.set)
    rounds = [one_round(options) for _ in range(options.rounds)]
    print(json.dumps(summary(options, rounds), indent=2))


if __name__ == "__main__":
    main()
