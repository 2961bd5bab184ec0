# SPDX-License-Identifier: Apache-2.0
"""Times `fettle quant` by GPTQ to int4 (symmetric, a scale for 128 weights, of
experts and attention) against GPTQ in plain PyTorch, batched over experts, and
against llm-compressor, on the same model, calibration ids and threads, by
processes in turns; and what text each result loses. Prints JSON.

    python tests/bench/gptq_speed.py MODEL --calibration JSONL ... --held JSONL ...
        [--llm-compressor PYTHON] [--tokens 32768] [--rounds 3] [--threads 2]

PYTHON is of an environment with llmcompressor 0.14.0.1. Seconds are from an
empty process to the written folder for fettle; the others' leave out imports and
writing, llm-compressor's is to the end of its calibration.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import calibration_ids
import trim_fidelity

HERE = pathlib.Path(__file__).parent


class Bench:
    def __init__(self, options, work):
        self.options = options
        self.work = work
        self.report = work / "report.json"
        self.program = trim_fidelity.Program(options.threads)
        self.ids = work / "ids.jsonl"
        calibration_ids.write(options.model, options.calibration,
                              options.tokens, options.length, self.ids,
                              whole=True)
        self.sides = {"fettle": self.fettle, "pytorch": self.pytorch}
        if options.llm_compressor:
            self.sides["llm-compressor, routed"] = (
                lambda out: self.llm_compressor(out, "routed"))
            self.sides["llm-compressor"] = (
                lambda out: self.llm_compressor(out, "all"))

    def fettle(self, out):
        _, seconds = self.program(
            "quant", self.options.model, "--out", out,
            "--bits", "int4", "--attention", "int4", "--zeros", "no",
            "--data", self.ids, "--tokens", 0,
            "--seq-len", self.options.length, report=self.report)
        return {"seconds": seconds["wall"]}

    def script(self, python, name, out, *arguments):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        output = subprocess.check_output(
            [python, HERE / name, self.options.model, self.ids, out,
             "--threads", str(self.options.threads), *arguments],
            text=True, stderr=subprocess.DEVNULL, env=environment)
        return json.loads(output.splitlines()[-1])

    def pytorch(self, out):
        return self.script(sys.executable, "quantize_in_torch.py", out,
                           "--recipe", "int4")

    def llm_compressor(self, out, experts):
        return self.script(self.options.llm_compressor,
                           "quantize_in_llmcompressor.py", out,
                           "--experts", experts)

    def held(self, folder):
        """Mean loss over the held files, and KL to the model itself."""
        result, _ = self.program(
            "eval", folder, "--data", *self.options.held,
            "--against", self.options.model, report=self.report)
        files = result["files"]
        return {key: statistics.fmean(file[key] for file in files)
                for key in ("nll", "kl")}

    def run(self):
        rounds = {side: [] for side in self.sides}
        results = {}
        for number in range(self.options.rounds):
            for side, quantize in self.sides.items():
                out = self.work / "out"
                rounds[side].append(quantize(out)["seconds"])
                if number == 0:
                    results[side] = self.held(out)
                shutil.rmtree(out)
                print(side, rounds[side][-1], file=sys.stderr, flush=True)
        for side, seconds in rounds.items():
            results[side]["seconds"] = statistics.median(seconds)
            results[side]["times_fettle"] = statistics.median(
                other / own for other, own in zip(seconds, rounds["fettle"]))
        return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--calibration", type=pathlib.Path, nargs="+",
                        required=True)
    parser.add_argument("--held", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--llm-compressor")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        results = Bench(options, pathlib.Path(work)).run()
    print(json.dumps({"model": options.model.name, "tokens": options.tokens,
                      "threads": options.threads, "rounds": options.rounds,
                      **results}, indent=2))


if __name__ == "__main__":
    main()
