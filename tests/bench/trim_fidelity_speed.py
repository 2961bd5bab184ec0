# SPDX-License-Identifier: Apache-2.0
"""Times what trim_fidelity.py doesn't: forward sweeps of trimmed models against
the untrimmed one, and the sweeps of scores against plain ones. All that is
compared runs in turns within one run, and ratios are medians over rounds.

    python tests/bench/trim_fidelity_speed.py MODEL (as trim_fidelity.py)
        [--rounds 9] [--sequences 16] [--length 512]

Adds lines of the kinds "speed" and "cost" to the results.
"""

import json
import statistics
import subprocess

import build_folder
import trim_fidelity
import trim_fidelity_grid as grid

GRADIENT = ["mask_fisher", "weight_fisher", "grad_abs", "heapr", "obs",
            "expert_fisher"]
FORWARD = ["camera", "wanda", "magnitude", "random", "reap", "frequency",
           "gate_mass"]
SCORES = {
    "plain backward": "backward",
    "plain backward, gradients of all weights": "gradient",
    "mask_fisher": "scores mask_fisher",
    "obs": "scores obs",
    "grad_abs": "scores grad_abs",
    "all gradient scores": "scores " + ",".join(GRADIENT),
    "plain forward": "layers",
    "wanda": "scores wanda",
    "all forward scores": "scores " + ",".join(FORWARD),
}


class Served:
    """A running fettle_bench_sweep."""

    def __init__(self, program, model, ids, tokens, threads):
        self.process = subprocess.Popen(
            [program, model, ids, str(tokens), str(threads), "cpu",
             "float32"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def in_turns(tasks, rounds):
    """Seconds of every task by name, a list of one entry a round."""
    for task in tasks.values():
        task()
    seconds = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(task())
    return seconds


def ratio(above, below):
    return statistics.median(a / b for a, b in zip(above, below))


class Speed(trim_fidelity.Bench):
    def serve(self, model):
        config = json.loads((self.options.model / "config.json").read_text())
        count, length = self.options.sequences, self.options.length
        # What is timed doesn't depend on the ids beyond routing.
        ids = [[(7919 * (s * length + t)) % config["vocab_size"]
                for t in range(length)] for s in range(count)]
        file = self.work / "ids.json"
        file.write_text(json.dumps(ids))
        program = build_folder.find("fettle_bench_sweep")
        return Served(program, model, file, 4096, self.options.threads)

    @property
    def tokens(self):
        return self.options.sequences * self.options.length

    def cost(self):
        served = self.serve(self.options.model)
        seconds = in_turns(
            {name: lambda c=command: served(c)
             for name, command in SCORES.items()}, self.options.rounds)
        served.close()
        backward, forward = seconds["plain backward"], seconds["plain forward"]
        self.results.add({
            "kind": "cost", "model": self.model,
            "of": {"threads": self.options.threads, "tokens": self.tokens},
            "rounds": self.options.rounds,
            "seconds": {n: statistics.median(s) for n, s in seconds.items()},
            "to_backward": {n: ratio(s, backward) for n, s in seconds.items()},
            "to_gradient": {
                n: ratio(s, seconds["plain backward, gradients of all weights"])
                for n, s in seconds.items()},
            "to_forward": {n: ratio(s, forward) for n, s in seconds.items()}})

    def speed(self):
        runs = [grid.Run(scope=scope, keep=keep, repair="ridge")
                for keep in grid.KEEPS for scope in ("global", "expert")]
        served = {"untrimmed": self.serve(self.options.model)}
        for number, run in enumerate(runs):
            folder = self.work / f"speed-{number}"
            self.trim(run, self.scores(run, runs), folder, f"speed-{number}")
            served[f"{run.scope} {run.keep}"] = self.serve(folder)
        seconds = in_turns(
            {name: lambda s=model: s("forward")
             for name, model in served.items()}, self.options.rounds)
        for model in served.values():
            model.close()
        self.results.add({
            "kind": "speed", "model": self.model,
            "of": {"threads": self.options.threads, "tokens": self.tokens},
            "rounds": self.options.rounds,
            "tokens_per_second": {
                n: self.tokens / statistics.median(s)
                for n, s in seconds.items()},
            "times_untrimmed": {
                n: ratio(seconds["untrimmed"], s)
                for n, s in seconds.items()}})


if __name__ == "__main__":
    parser = trim_fidelity.options()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--only", choices=["cost", "speed"])
    options = parser.parse_args()
    bench = Speed(options)
    if options.only != "speed":
        bench.cost()
    if options.only != "cost":
        bench.speed()
