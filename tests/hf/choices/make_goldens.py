# SPDX-License-Identifier: Apache-2.0
"""Writes goldens.json: what lm-evaluation-harness says of the questions beside
this file, asked of the demo model. Run by hand, where `pip install lm-eval`
(0.4.13 was used, with transformers 5.17 and torch 2.11) is at hand:

    HF_HUB_OFFLINE=1 python tests/hf/choices/make_goldens.py

The tasks are the harness's own, with the data replaced; `own` is a task of the
form that Fettle documents. Rows were written for this test."""

import json
import pathlib
import tempfile

import lm_eval
import lm_eval.tasks

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parents[2] / "demo" / "model"
TASKS = pathlib.Path(lm_eval.tasks.__file__).parent

# The harness's file of each task, and what stands in it otherwise.
FROM = {
    "arc": "arc/arc_easy.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "mmlu": "mmlu/default/_default_template_yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "sciq": "sciq/sciq.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml",
}
OWN = """
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: answer
"""
METRICS = """
metric_list:
  - metric: acc
  - metric: acc_norm
  - metric: acc_bytes
"""


def write_task(folder: pathlib.Path, name: str) -> None:
    rows = HERE / f"{name}.jsonl"
    base = f"include: {TASKS / FROM[name]}\n" if name in FROM else OWN
    files = f"{{test: {rows}}}"
    more = ""
    if name == "mmlu":
        files = f"{{test: {rows}, dev: {HERE / 'mmlu_dev.jsonl'}}}"
        more = (
            'description: "The following are multiple choice questions (with '
            'answers) about elementary mathematics.\\n\\n"\n'
        )
    (folder / f"{name}.yaml").write_text(
        f"task: own_{name}\n{base}dataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {files}}}\ntest_split: test\n"
        f"validation_split: null\ntraining_split: null\ntag: []\n{more}{METRICS}"
    )


def measured(name: str, shots: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        write_task(pathlib.Path(folder), name)
        manager = lm_eval.tasks.TaskManager(include_path=folder, include_defaults=False)
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(MODEL), "dtype": "float32"},
            tasks=[f"own_{name}"],
            num_fewshot=shots,
            batch_size=1,
            device="cpu",
            task_manager=manager,
            bootstrap_iters=100,
        )
    task = f"own_{name}"
    scores = found["results"][task]
    return {
        **{
            key: scores[f"{key.replace('_stderr', '')}{'_stderr' * key.endswith('_stderr')},none"]
            for metric in ("acc", "acc_norm", "acc_bytes")
            for key in (metric, f"{metric}_stderr")
        },
        "log_likelihoods": [
            [float(pair[0][0]) if isinstance(pair[0], (list, tuple)) else float(pair[0])
             for pair in sample["resps"]]
            for sample in sorted(found["samples"][task], key=lambda s: s["doc_id"])
        ],
    }


def main() -> None:
    goldens = {name: measured(name, 0) for name in [*FROM, "own"]}
    goldens["mmlu, 2 shots"] = measured("mmlu", 2)
    text = json.dumps({"lm_eval": lm_eval.__version__, "tasks": goldens}, indent=1)
    (HERE / "goldens.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
