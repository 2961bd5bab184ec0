// SPDX-License-Identifier: Apache-2.0
#include "serve/metrics.h"

#include <fmt/format.h>

namespace fettle::serve {

std::string metrics_text(const ServedCounts& counts) {
  std::string text;
  const auto add = [&](const char* name,
                       const char* kind,
                       const char* help,
                       std::int64_t value) {
    text += fmt::format(
        "# HELP fettle_{0} {2}\n# TYPE fettle_{0} {1}\nfettle_{0} {3}\n",
        name,
        kind,
        help,
        value);
  };
  add("requests_total", "counter", "Requests taken in.", counts.requests);
  add("refused_total",
      "counter",
      "Requests refused for want of room.",
      counts.refused);
  add("abandoned_total",
      "counter",
      "Answers whose clients went away.",
      counts.abandoned);
  add("prompt_tokens_total",
      "counter",
      "Tokens of prompts of ended answers.",
      counts.prompt_tokens);
  add("known_prompt_tokens_total",
      "counter",
      "Tokens of these prompts that were not read anew.",
      counts.known_tokens);
  add("new_tokens_total",
      "counter",
      "Tokens of ended answers.",
      counts.new_tokens);
  add("answers_in_work",
      "gauge",
      "Answers that are decoded or wait.",
      counts.choices);
  return text;
}

}  // namespace fettle::serve
