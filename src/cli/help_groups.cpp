// SPDX-License-Identifier: Apache-2.0
#include "cli/help_groups.h"

#include <array>
#include <sstream>
#include <string>

namespace fettle::cli {
namespace {

struct OptionGroup {
  std::string_view command;
  const char* title;
  const char* options;  // by spaces, without dashes
};

constexpr std::array<OptionGroup, 42> kGroups{{
    {"fit", "The machine that runs it", "vram ram disk budget engine"},
    {"fit", "The work", "for context parallel keep-min bits-min report"},
    {"fit",
     "The best plan, by data",
     "data columns form tokens seq-len objective calibrate out plan-only held "
     "recipe tune tune-steps"},
    {"eval",
     "Loss of text",
     "data columns form seq-len against tokens-per-sweep"},
    {"eval", "Questions", "choices generate limit shots shots-from rows"},
    {"eval",
     "Answers in writing",
     "pattern match chat max-new-tokens stop parallel"},
    {"generate", "Input", "prompt prompt-file chat system"},
    {"generate", "Where it ends", "max-new-tokens stop"},
    {"generate",
     "How tokens are chosen",
     "temperature top-k top-p min-p repetition-penalty presence-penalty "
     "frequency-penalty logprobs"},
    {"generate", "Arithmetic", "activations"},
    {"chat", "Conversation", "system context"},
    {"chat", "Where an answer ends", "max-new-tokens stop"},
    {"chat",
     "How tokens are chosen",
     "temperature top-k top-p min-p repetition-penalty presence-penalty "
     "frequency-penalty"},
    {"chat", "Arithmetic", "activations"},
    {"serve", "Where and to whom", "host port api-key-file alias"},
    {"serve",
     "How much at a time",
     "context parallel queue prefix-tokens grace"},
    {"serve", "Arithmetic", "activations"},
    {"analyze", "Input and output", "data columns form out merge by-file"},
    {"analyze", "Scores", "scores tokens seq-len batch-sequences prices"},
    {"analyze", "Long runs", "chunk-tokens keep-moments resume restart"},
    {"trim", "Input and output", "scores out plan plan-only report mtp"},
    {"trim",
     "What is cut",
     "keep budget for score scope unit widths round min-width max-width "
     "normalise condenser-width exchange-rate price-tokens stored"},
    {"trim",
     "What makes up for it",
     "repair data columns form tokens seq-len ridge-lambda repair-inputs "
     "merge"},
    {"trim", "Quality", "eval-data"},
    {"quant",
     "Input and output",
     "out data columns form tokens seq-len mtp resume restart"},
    {"quant",
     "Bits",
     "bits average-bits budget for down attention shared dense embeddings head "
     "group zeros entropy-weight"},
    {"quant",
     "Bits shared out among weights",
     "candidates allocate prices errors plan plan-only"},
    {"quant",
     "How weights are rounded",
     "method refine act-order damping calibrate plain-gate starved moments"},
    {"quant", "Quality", "eval-data"},
    {"tune",
     "Input and output",
     "data columns form append-eos eval-data teacher out merge merge-dtype "
     "mtp peft"},
    {"tune",
     "Run",
     "method steps epochs tokens-per-step seq-len save-every eval-every "
     "patience keep-best max-bad-steps resume restart"},
    {"tune",
     "Learning rate and optimizer",
     "lr warmup warmup-steps min-lr-ratio weight-decay beta1 beta2 epsilon "
     "clip-norm"},
    {"tune", "Routers", "router gumbel-noise router-warmup router-lr"},
    {"tune", "Teacher", "kd-weight kd-top"},
    {"tune",
     "Of usaf and smt",
     "frac scope unit block score-sequences reselect-every drop-fraction "
     "drop-by rest-below attention-frac"},
    {"tune", "Of esft", "esft-share esft-by"},
    {"tune", "Of lora", "lora-targets rank lora-alpha"},
    {"tune", "Of full", "match embeddings states"},
    {"tune",
     "Of condenser",
     "condensers condenser-after bias-rate condenser-bias-rate"},
    {"export", "Input and output", "out format dtype shard-size mtp"},
    {"export",
     "What a format can't hold",
     "drop-constants drop-condensers recode nearest"},
    {"", "Common options", "help"},
}};

}  // namespace

void group_options(CLI::App& parser, std::string_view command) {
  for (const OptionGroup& group : kGroups) {
    if (!group.command.empty() && group.command != command) continue;
    std::istringstream names(group.options);
    for (std::string name; names >> name;) {
      CLI::Option* option = parser.get_option_no_throw("--" + name);
      if (option != nullptr) option->group(group.title);
    }
  }
}

}  // namespace fettle::cli
