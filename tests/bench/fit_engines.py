# SPDX-License-Identifier: Apache-2.0
"""What `fettle fit` promises for other programs beside what they take: plans for
transformers and llama.cpp, exports, loads each export in its program in a
process of its own, fills the context with a prompt and reads that process's
peak resident memory. Prints a table.

    python tests/bench/fit_engines.py MODEL --data CALIB.jsonl
        [--context 1000] [--budgets 2MB ...] [--engines transformers llama.cpp]

transformers wants compressed-tensors; llama.cpp is found as llama_side.py does.
The CPU computes.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile

import build_folder

NEW = 8


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def kept():
    """Of what is resident now, what is no page of a file: the system can't
    drop it."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def in_transformers(folder, context, threads):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    before = peak()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto")
    loaded = peak()
    ids = torch.arange(context - NEW).remainder(
        model.config.get_text_config().vocab_size)[None]
    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids),
                       max_new_tokens=NEW, do_sample=False)
    return {"before": before, "loaded": loaded, "peak": peak(),
            "kept": kept()}


def in_llama(folder, context, threads):
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    before = peak()
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0
    [file] = pathlib.Path(folder).glob("*.gguf")
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), options)
    loaded = peak()
    import llama_side

    held = llama_side.Context(model, context, 1, threads)
    ids = [i % held.vocab for i in range(context - NEW)]
    for begin in range(0, len(ids), 512):
        part = ids[begin:begin + 512]
        held.passed([(token, begin + i, 0, i + 1 == len(part))
                     for i, token in enumerate(part)])
    for step in range(NEW):
        held.passed([(step, len(ids) + step, 0, True)])
    return {"before": before, "loaded": loaded, "peak": peak(),
            "kept": kept()}


RUNS = {"transformers": in_transformers, "llama.cpp": in_llama}


def fitted(options, engine, budget, out):
    """The report of a fit that exported for the program."""
    arguments = ["fit", options.model, "--engine", engine, "--ram", "1TiB",
                 "--context", options.context, "--data", *options.data,
                 "--tokens", options.tokens, "--calibrate", "usual", "--out",
                 out, "--json", "-", "--quiet"]
    if budget:
        arguments += ["--budget", budget]
    if options.held:
        arguments += ["--held", *options.held]
    done = subprocess.run(
        [build_folder.find("fettle"), *map(str, arguments)],
        capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def measured(options, engine, folder):
    done = subprocess.run(
        [sys.executable, __file__, "--child", engine, folder,
         str(options.context), str(options.threads)],
        capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def mib(value):
    return f"{value / 2**20:.0f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--held", nargs="+")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--context", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budgets", nargs="+", required=True)
    parser.add_argument("--engines", nargs="+", choices=RUNS, default=[*RUNS])
    options = parser.parse_args()
    print("| program | weights | promised MiB | of it program | peak MiB | "
          "before loading | loaded | no file's pages | peak / promised |\n"
          "|---|---|---|---|---|---|---|---|---|")
    for engine in options.engines:
        for budget in options.budgets:
            with tempfile.TemporaryDirectory() as work:
                made = fitted(options, engine, budget, work)
                took = measured(options, engine, made["exported"])
            promise = made["promised"]
            print(f"| {engine} | {made['chosen']['bytes'] / 1e6:.2f} MB | "
                  f"{mib(promise['total_bytes'])} | "
                  f"{mib(promise['runtime_bytes'])} | {mib(took['peak'])} | "
                  f"{mib(took['before'])} | {mib(took['loaded'])} | "
                  f"{mib(took['kept'])} | "
                  f"{took['peak'] / promise['total_bytes']:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(RUNS[sys.argv[2]](
            sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
    else:
        main()
