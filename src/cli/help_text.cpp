// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cli/help.h"
#include "cli/shell_text.h"
#include "core/error.h"
#include "tune/method/method.h"

namespace fettle::cli {
namespace {

// Rows of a name and what it means, the second column wrapped.
std::string rows_text(
    const std::vector<std::pair<std::string, std::string>>& rows) {
  std::size_t width = 0;
  for (const auto& [name, unused] : rows) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, meaning] : rows) {
    text += fmt::format(
        "  {:<{}}  {}\n", name, width, wrapped(meaning, width + 4, width + 4));
  }
  return text;
}

std::string data_section() {
  return "Data, a JSON object a line, known by its keys:\n" +
         rows_text(
             {{R"({"text": ...})", "every token counts"},
              {R"({"prompt": ..., "completion": ...})",
               "the completion counts"},
              {R"({"messages": [{"role": ..., "content": ...}]})",
               "what the assistant says counts; by the model's chat template"},
              {R"({"input_ids": [...], "labels": [...]})",
               "as they are; a label of -100 does not count"}}) +
         "  Also as one JSON array, and gzip; a folder or a pattern names all "
         "of "
         "its files. Several files\n"
         "  may carry weights: a.jsonl:2,b.jsonl:1. --columns and --form read "
         "other forms.\n";
}

std::string choices_section() {
  return "Questions, a JSON object a line:\n" +
         rows_text(
             {{R"({"context": ..., "choices": [...], "answer": 0})",
               "the context as it is; each choice behind a space, or behind "
               "\"delimiter\""},
              {R"({"question": ..., "choices": [...], "answer": 0})",
               "asked as \"Question: ...\\nAnswer:\""}}) +
         "  and the rows of ARC, HellaSwag, MMLU, PIQA, WinoGrande, BoolQ, "
         "OpenBookQA, SciQ and\n"
         "  CommonsenseQA as their data sets have them, asked as lm-eval asks "
         "them.\n";
}

std::string method_section() {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const tune::Method& method : tune::methods()) {
    rows.emplace_back(method.name, method.help);
  }
  return "Methods, of which several are joined by +:\n" + rows_text(rows);
}

std::string recipe_section() {
  return "A recipe, whose stages take their commands' options, dashes as "
         "underscores:\n"
         "  model: MODEL\n"
         "  out: work                      # each stage has a folder in it\n"
         "  data: {calibration: [calib.jsonl], train: [train.jsonl], eval: "
         "[held.jsonl]}\n"
         "  seed: 1\n"
         "  seq_len: 512                   # of the losses in the table\n"
         "  stages:\n"
         "    - analyze: {tokens: 262144}\n"
         "    - trim: {keep: 0.5}\n"
         "    - tune: {method: usaf, steps: 200}   # merged behind it\n"
         "    - eval: {against: original}          # KL and top-1 beside the "
         "loss\n"
         "    - export: {format: hf-padded}\n"
         "  A stage's own data: stands in place of the recipe's, which may say "
         "how it is read:\n"
         "  data: {train: chats.jsonl, eval: held.jsonl, form: sharegpt}, or "
         "columns. A stage whose\n"
         "  files, options and inputs did not change is skipped.\n";
}

using HelpTable = std::map<std::string_view, CommandHelp>;

HelpTable measuring_help() {
  return {
      {"inspect",
       {"Checks every header of a model folder and tells what the model is "
        "made of: parameters, bytes and types by part, and the width of each "
        "layer's experts. Reads no weights.",
        {},
        {"fettle inspect MODEL"}}},
      {"fit",
       {"Tells from headers alone, without reading a weight, what of a model "
        "fits a machine: bytes by part for shares of the experts' neurons and "
        "for schemes of few bits, what conversations take beside them, and how "
        "long they may get. MODEL may hold no more than config.json. With "
        "--data it finds the best plan within a bound, makes it unless "
        "--plan-only is given, and measures it on --held.",
        {},
        {"fettle fit MODEL --vram 12GiB",
         "fettle fit MODEL --vram 8GiB --ram 32GiB --engine llama.cpp "
         "--context 32768",
         "fettle fit MODEL --ram 16GiB --keep-min 0.5 --bits-min int3 --report "
         "fit.html",
         "fettle fit MODEL --vram 24GiB --for tune",
         "fettle fit MODEL --budget 8GiB --data calib.jsonl --held held.jsonl "
         "--out fitted"}}},
      {"eval",
       {"Measures the mean negative log-likelihood and perplexity of held-out "
        "text, and with --against how far the model's predictions are from "
        "another's. With --choices it has "
        "multiple-choice questions answered, and with --generate questions in "
        "writing.",
        {data_section(), choices_section()},
        {"fettle eval MODEL --data held.jsonl",
         "fettle eval trimmed --choices arc.jsonl,piqa.jsonl --rows rows.jsonl",
         "fettle eval trimmed --generate gsm8k.jsonl --pattern '#### (\\S+)' "
         "--shots 5 --shots-from train.jsonl",
         "fettle eval trimmed --data held.jsonl --against MODEL"}}},
      {"generate",
       {"Continues a prompt, and prints the text as it is made.",
        {},
        {"fettle generate MODEL --prompt 'Once upon a time' --temperature 0.7",
         "fettle generate MODEL --chat --system 'Be brief.' --prompt 'Why?'",
         "fettle generate MODEL --stop '###' < prompt.txt"}}},
      {"chat",
       {"Talks with the model, by its own chat template: a line is a question, "
        "its answer is printed as it is made. /help lists what else a line may "
        "say.",
        {},
        {"fettle chat MODEL --system 'Be brief.' --temperature 0.7"}}},
      {"serve",
       {"Answers programs that speak OpenAI's API, many at a time: "
        "completions, "
        "chats and streams of both at http://HOST:PORT/v1. Ctrl-C lets the "
        "running answers end.",
        {},
        {"fettle serve MODEL --parallel 4 --context 4096",
         "fettle serve MODEL --host 0.0.0.0 --api-key-file key.txt"}}},
  };
}

HelpTable shrinking_help() {
  return {
      {"analyze",
       {"Measures on calibration text what every neuron and expert is worth, "
        "and writes the scores that trim ranks by, with a report.",
        {data_section()},
        {"fettle analyze MODEL --data calib.jsonl --out scores",
         "fettle analyze --merge scores-math scores-code --out scores"}}},
      {"trim",
       {"Cuts the neurons or whole experts whose scores are lowest, and with "
        "--data fits what is left to what the model computed before.",
        {data_section()},
        {"fettle trim MODEL --scores scores --keep 0.5 --data calib.jsonl "
         "--out "
         "trimmed",
         "fettle trim MODEL --scores scores --budget 11GiB --out trimmed"}}},
      {"quant",
       {"Stores weights in few bits, led by calibration text where there is "
        "--data, and tells the error of each kind of weight.",
        {data_section()},
        {"fettle quant MODEL --bits int4 --data calib.jsonl --out small",
         "fettle quant MODEL --budget 6GiB --data calib.jsonl --out small"}}},
  };
}

HelpTable training_help() {
  return {
      {"tune",
       {"Trains a part of the weights on text, by the chosen method, and "
        "writes "
        "an adapter, and with --merge the tuned model.",
        {method_section(), data_section()},
        {"fettle tune trimmed --data train.jsonl --out tuned --merge merged",
         "fettle tune MODEL --data train.jsonl --method lora --out tuned "
         "--peft "
         "adapter",
         "fettle tune trimmed --data train.jsonl --teacher MODEL --out tuned "
         "--resume"}}},
      {"merge",
       {"Adds the adapter that tune wrote to the model that it was trained on.",
        {},
        {"fettle merge trimmed --adapter tuned --out merged"}}},
      {"export",
       {"Writes a folder that other programs load, reads it back, and compares "
        "it with the model.",
        {},
        {"fettle export merged --format hf-padded --out export",
         "fettle export small --format gguf --out gguf"}}},
  };
}

HelpTable program_help() {
  return {
      {"run",
       {"Runs the stages of a recipe one after the other, measures the model "
        "behind each, and skips what is done already.",
        {recipe_section()},
        {"fettle run recipe.yaml --dry-run",
         "fettle run recipe.yaml",
         "fettle run recipe.yaml --resume"}}},
      {"help",
       {"Tells what a command does and which options it takes.",
        {},
        {"fettle help trim"}}},
      {"completion",
       {"Prints a script that completes commands, options and values in a "
        "shell.",
        {},
        {"fettle completion bash > "
         "~/.local/share/bash-completion/completions/fettle",
         "fettle completion zsh > ~/.zfunc/_fettle    # a folder in $fpath",
         "fettle completion fish > ~/.config/fish/completions/fettle.fish"}}},
  };
}

const HelpTable& help_table() {
  static const HelpTable table = [] {
    HelpTable all = measuring_help();
    all.merge(shrinking_help());
    all.merge(training_help());
    all.merge(program_help());
    return all;
  }();
  return table;
}

}  // namespace

CommandHelp help_of(std::string_view command) {
  const auto found = help_table().find(command);
  FETTLE_ASSERT(found != help_table().end());
  return found->second;
}

}  // namespace fettle::cli
