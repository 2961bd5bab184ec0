# SPDX-License-Identifier: Apache-2.0
"""Loads a model with transformers and compares its loss with Fettle's.

    demo_check.py MODEL LOSS.json

LOSS.json is of `fettle eval --seq-len 256 --json`. Exits 1 if a file's loss
differs by more than 2e-4 nats, the rounding that different orders of summation
leave, or if another number of tokens was scored.
"""

import json
import pathlib
import sys

import torch
import transformers
from make_demo_model import measure, read_texts

TOLERANCE = 2e-4


def main(folder: str, loss_file: str) -> int:
    # A model this small only waits for a second thread.
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    print(f"Loss of {pathlib.Path(folder).name} by transformers and by Fettle:\n")
    wrong = 0
    for file in json.loads(pathlib.Path(loss_file).read_text())["files"]:
        tokens, nll, _ = measure(model, tokenizer, read_texts(file["file"]))
        same = tokens == file["tokens"] and abs(nll - file["nll"]) <= TOLERANCE
        wrong += not same
        print(
            f"{pathlib.Path(file['file']).name:22}  {nll:.6f}  {file['nll']:.6f}"
            f"  {'same' if same else 'DIFFERENT'}"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
