# SPDX-License-Identifier: Apache-2.0
"""Times Fettle's sweeps against transformers on the same model, ids, batch,
type and threads or card, in turns within one run, and against the device's own
matrix-product rate; prints JSON.

    python tests/bench/sweeps.py MODEL [--sequences 8] [--length 512]
        [--threads 2] [--runs 7] [--no-transformers]
        [--device cuda] [--dtype bfloat16]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import build_folder


class Served:
    """A running fettle_bench_sweep."""

    def __init__(self, ids, micro_batch, options):
        self.process = subprocess.Popen(
            [build_folder.find("fettle_bench_sweep"), options.model, ids,
             str(micro_batch), str(options.threads), options.device,
             options.dtype],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Reference:
    """The same work by transformers, with its fastest experts."""

    def __init__(self, ids, options):
        import torch
        import transformers

        torch.set_num_threads(options.threads)
        self.torch = torch
        self.device = options.device
        self.ids = torch.tensor(ids, device=options.device)
        self.models = {}
        for experts in ("grouped_mm", "eager"):
            self.models[experts] = self.load(transformers, experts, options)
        self.fastest = None

    def load(self, transformers, experts, options):
        """With the fastest attention that the family has."""
        def loaded(attention):
            return transformers.AutoModelForCausalLM.from_pretrained(
                options.model, dtype=getattr(self.torch, options.dtype),
                attn_implementation=attention,
                experts_implementation=experts).to(options.device)

        try:
            return loaded("sdpa")
        except ValueError:  # gpt-oss has sinks
            return loaded("eager")

    def __call__(self, command):
        if self.fastest is None:
            timings = {}
            for name in self.models:
                self.run(self.models[name], command)
                timings[name] = self.run(self.models[name], command)["seconds"]
            self.fastest = min(timings, key=timings.get)
        return self.run(self.models[self.fastest], command)

    def run(self, model, command):
        torch = self.torch
        self.wait()
        begin = time.perf_counter()
        with torch.set_grad_enabled(command != "forward"):
            # Micro-batches of whole rows, as Fettle's are.
            loss = model(self.ids, labels=self.ids, use_cache=False).loss
            if command != "forward":
                loss.backward()
                model.zero_grad(set_to_none=True)
        self.wait()
        return {"seconds": time.perf_counter() - begin,
                "nll": loss.item() * (self.ids.numel() - len(self.ids))}

    def wait(self):
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def peak(self):
        """Bytes of the card's memory, with both copies of the model."""
        return self.torch.cuda.max_memory_reserved()


def product_flops(options, config):
    """Floating-point operations of a token's matrix products, forward: two for
    each weight that works on it, and attention's own."""
    model = json.loads(subprocess.run(
        [build_folder.find("fettle"), "inspect", options.model, "--json", "-"],
        check=True, stdout=subprocess.PIPE).stdout)
    working = model["active_parameters"]
    if not config.get("tie_word_embeddings"):
        working -= config["vocab_size"] * config["hidden_size"]
    head = (config.get("head_dim")
            or config["hidden_size"] // config["num_attention_heads"])
    kinds = config.get("layer_types") or []
    attending = (sum("attention" in kind and "linear" not in kind
                     for kind in kinds)
                 or config["num_hidden_layers"])
    return 2 * (working + attending * options.length
                * config["num_attention_heads"] * head)


def measure(fettle, reference, command, options):
    """Both sides in turns: a row of the result, and rates of matrix products."""
    tokens = options.sequences * options.length
    tolerance = 1e-4 if options.dtype == "float32" else 5e-3
    fettle(command)
    if reference:
        reference.fastest = None
        reference(command)
    ours, theirs, rates = [], [], []
    for _ in range(options.runs):
        mine = fettle(command)
        ours.append(mine["seconds"])
        if reference:
            other = reference(command)
            theirs.append(other["seconds"])
            assert abs(mine["nll"] / other["nll"] - 1) < tolerance
        rates.append(fettle("matmul")["gflops"])
    row = {"tokens_per_second": tokens / statistics.median(ours)}
    if theirs:
        row["transformers_tokens_per_second"] = (
            tokens / statistics.median(theirs))
        row["experts_implementation"] = reference.fastest
        row["ratio"] = statistics.median(t / o for o, t in zip(ours, theirs))
    return row, rates


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"],
                        default="float32")
    return parser.parse_args()


def main():
    options = arguments()
    config = json.loads((pathlib.Path(options.model) / "config.json").read_text())

    # The same ids for both; a language model's cost doesn't depend on them
    # beyond routing, so a fixed sequence of the whole vocabulary serves.
    ids = [[(7919 * (s * options.length + t)) % config["vocab_size"]
            for t in range(options.length)] for s in range(options.sequences)]
    tokens = options.sequences * options.length
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "ids.json"
        path.write_text(json.dumps(ids))
        fettle = Served(path, tokens, options)
        reference = (
            None if options.no_transformers else Reference(ids, options))
        result = {"model": config["model_type"], "tokens": tokens,
                  "threads": options.threads, "runs": options.runs,
                  "device": options.device, "dtype": options.dtype}
        rates = []
        for command in ("forward", "gradient", "scores"):
            result[command], some = measure(
                fettle, None if command == "scores" else reference, command,
                options)
            rates += some
        result["matmul_gflops"] = statistics.median(rates)
        result["forward"]["share_of_matmul_rate"] = (
            product_flops(options, config) * 1e-9
            * result["forward"]["tokens_per_second"] / result["matmul_gflops"])
        result["peak_bytes"] = fettle("peak")["bytes"]
        if reference and options.device != "cpu":
            result["transformers_peak_bytes"] = reference.peak()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
