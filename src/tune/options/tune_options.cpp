// SPDX-License-Identifier: Apache-2.0
#include "tune/options/tune_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "tune/options/option_table.h"

namespace fettle::tune {

namespace {

constexpr std::int64_t kUsualSeqLen = 2048;

}  // namespace

TuneOptions settled(TuneOptions options, const model::ModelConfig& config) {
  if (options.seq_len != 0) return options;
  options.seq_len = std::min(kUsualSeqLen, options.tokens_per_step);
  if (config.max_position > 0) {
    options.seq_len = std::min(options.seq_len, config.max_position);
  }
  return options;
}

std::int64_t warmup_steps(double warmup, std::int64_t steps) {
  const double of = warmup < 1.0 ? static_cast<double>(steps) : 1.0;
  return std::llround(warmup * of);
}

bool Allowed::holds(double value) const {
  return std::isfinite(value) &&
         (above_least ? value > least : value >= least) &&
         (below_most ? value < most : value <= most);
}

bool Allowed::holds(const std::string& value) const {
  return choices.empty() || std::ranges::find(choices, value) != choices.end();
}

std::string Allowed::text() const {
  if (!choices.empty())
    return fmt::format("one of {}", fmt::join(choices, ", "));
  if (!std::isfinite(most)) {
    return above_least ? fmt::format("a number above {}", least)
                       : fmt::format("{} or more", least);
  }
  return fmt::format(
      "{} {}, {} {}",
      above_least ? "above" : "at least",
      least,
      below_most ? "below" : "at most",
      most);
}

std::vector<std::string> methods_of(const TuneOptions& options) {
  std::vector<std::string> methods;
  std::istringstream stream(options.method);
  for (std::string one; std::getline(stream, one, '+');) {
    methods.push_back(one);
  }
  return methods;
}

bool has_method(const TuneOptions& options, std::string_view name) {
  const std::vector<std::string> methods = methods_of(options);
  return std::ranges::find(methods, name) != methods.end();
}

Json to_json(const TuneOptions& options) {
  Json json{{"seed", options.seed}};
  for_each_option(
      options, [&](const OptionText& text, const auto& value, const Allowed&) {
        json[text.name] = value;
      });
  return json;
}

}  // namespace fettle::tune
