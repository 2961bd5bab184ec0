# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's side of against_llama.py, in a process of its own: reads what is
asked as JSON, prints the figures as JSON."""

import ctypes
import json
import resource
import sys
import time

import llama_cpp
import numpy


class Context:
    def __init__(self, model, tokens, sequences, threads):
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = tokens
        options.n_batch = options.n_ubatch = 512
        options.n_seq_max = sequences
        options.n_threads = options.n_threads_batch = threads
        self.vocab = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(model))
        self.context = llama_cpp.llama_init_from_model(model, options)
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)

    def clear(self):
        llama_cpp.llama_memory_clear(
            llama_cpp.llama_get_memory(self.context), True)

    def passed(self, rows):
        """Passes (token, position, sequence, wanted) rows; the likeliest token
        behind each that is wanted."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = wanted
        assert llama_cpp.llama_decode(self.context, batch) == 0
        found = []
        for i, row in enumerate(rows):
            if row[3]:
                values = llama_cpp.llama_get_logits_ith(self.context, i)
                found.append(int(numpy.ctypeslib.as_array(
                    ctypes.cast(values, ctypes.POINTER(ctypes.c_float)),
                    shape=(self.vocab,)).argmax()))
        return found

    def begin(self, prompt, sequence=0):
        last = len(prompt) - 1
        return self.passed([(token, i, sequence, i == last)
                            for i, token in enumerate(prompt)])[0]


def rate(context, prompts, tokens):
    context.clear()
    ids = [context.begin(prompt, s) for s, prompt in enumerate(prompts)]
    begin = time.perf_counter()
    for step in range(tokens - 1):
        ids = context.passed(
            [(token, len(prompts[s]) + step, s, True)
             for s, token in enumerate(ids)])
    return len(prompts) * (tokens - 1) / (time.perf_counter() - begin)


def main():
    asked = json.load(sys.stdin)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), options)
    sequences = len(asked["short"])
    each = max(len(asked["long"]) + 1, 8 + asked["tokens"])
    context = Context(model, sequences * each, sequences, asked["threads"])
    context.begin(asked["warm"])
    context.clear()
    begin = time.perf_counter()
    context.begin(asked["long"])
    result = {"first_token_seconds": time.perf_counter() - begin}
    for name, some in [("one", asked["short"][:1]), ("together", asked["short"])]:
        result[f"{name}_tokens_per_second"] = rate(context, some, asked["tokens"])
    # Python's own part was there before.
    result["peak_bytes"] = 1024 * (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
