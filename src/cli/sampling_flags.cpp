// SPDX-License-Identifier: Apache-2.0
#include "cli/sampling_flags.h"

#include "cli/unread.h"
#include "core/error.h"

namespace fettle::cli {

void add_activations_option(CLI::App& app, std::string& name) {
  app.add_option(
         "--activations",
         name,
         "What packed weights are multiplied by on a CPU: full, or int8, "
         "rounded by groups, which is faster")
      ->check(CLI::IsMember({"full", "int8"}))
      ->capture_default_str();
}

model::Activations chosen_activations(
    const std::string& name, at::Device device) {
  if (name == "full") return model::Activations::kFull;
  if (!device.is_cpu()) {
    throw UserError(
        "cli",
        "--activations",
        "int8 is for the CPU; leave it out, or take --device cpu");
  }
  return model::Activations::kInt8;
}

void add_sampling_flags(CLI::App& app, SamplingFlags& flags) {
  decode::SamplingOptions& s = flags.sampling;
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->capture_default_str();
  };
  add("--max-new-tokens", flags.max_new_tokens, "Tokens to add at most")
      ->check(CLI::NonNegativeNumber);
  app.add_option(
         "--stop",
         flags.stops,
         "A text that ends it and is left out; may be given several times")
      ->allow_extra_args(false);
  add("--temperature", s.temperature, "0: always the likeliest token")
      ->check(CLI::NonNegativeNumber);
  add("--top-k", s.top_k, "Sample from this many tokens; 0: from all")
      ->check(CLI::NonNegativeNumber);
  add("--top-p", s.top_p, "Sample from this much probability")
      ->check(CLI::Range(0.0, 1.0));
  add("--min-p",
      s.min_p,
      "Sample from tokens at least this share as likely as the likeliest")
      ->check(CLI::Range(0.0, 1.0));
  add("--repetition-penalty",
      s.repetition_penalty,
      "Divides logits of tokens that were there before; 1: none")
      ->check(CLI::Range(0.01, 100.0));
  add("--presence-penalty",
      s.presence_penalty,
      "Taken from the logits of tokens that were made")
      ->check(CLI::Range(-100.0, 100.0));
  add("--frequency-penalty",
      s.frequency_penalty,
      "Taken from them for each time that they were made")
      ->check(CLI::Range(-100.0, 100.0));
  add_activations_option(app, flags.activations);
}

void check_sampling_flags(const CLI::App& app, const SamplingFlags& flags) {
  refuse_unread(
      app,
      {{"--top-k --top-p --min-p",
        flags.sampling.temperature > 0,
        "--temperature above 0"}});
}

}  // namespace fettle::cli
