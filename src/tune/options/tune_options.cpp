// SPDX-License-Identifier: Apache-2.0
#include "tune/options/tune_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/error.h"
#include "tune/method/method.h"
#include "tune/method/method_router.h"
#include "tune/options/option_table.h"

namespace fettle::tune {

namespace {

constexpr std::int64_t kUsualSeqLen = 2048;

[[noreturn]] void refuse(
    std::string_view option,
    std::string_view expected,
    const std::string& found) {
  throw UserError(
      "tune",
      option,
      fmt::format(
          "expected {}, found {}; change this option", expected, found));
}

// Whether one of the words of `methods` is in use; none asked for: yes.
bool is_read(const char* methods, const TuneOptions& options) {
  std::istringstream words(methods);
  bool any = false;
  for (std::string word; words >> word;) {
    any = true;
    if (has_method(options, word)) return true;
  }
  return !any;
}

void check_values(const TuneOptions& options) {
  const Json defaults = to_json(TuneOptions{});
  for_each_option(
      options,
      [&](const OptionText& text, const auto& value, const Allowed& allowed) {
        if (!allowed.holds(value)) {
          refuse(text.name, allowed.text(), fmt::format("{}", value));
        }
        if (Json(value) != defaults[text.name] &&
            !is_read(text.methods, options)) {
          refuse(
              text.name,
              fmt::format("a method that reads it ({})", text.methods),
              options.method);
        }
      });
}

void check_whole_warmup(const char* option, double warmup) {
  if (warmup < 1.0 || warmup == std::floor(warmup)) return;
  refuse(option, "a share below 1, or whole steps", fmt::format("{}", warmup));
}

// Routers that never train would be counted as trained.
void check_warmups(const TuneOptions& options) {
  check_whole_warmup("warmup", options.warmup);
  check_whole_warmup("router_warmup", options.router_warmup);
  if (!trains_router(options)) return;
  const std::int64_t frozen = frozen_router_steps(options);
  if (frozen < options.steps) return;
  refuse(
      "router_warmup",
      fmt::format("fewer than the run's {} steps", options.steps),
      fmt::format("{}, so that no router would train", frozen));
}

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

void check_options(
    const TuneOptions& options, const model::ModelConfig& config) {
  check_methods(options, config);
  check_values(options);
  check_warmups(options);
  if (options.tokens_per_step < options.seq_len) {
    refuse(
        "tokens_per_step",
        fmt::format("at least seq_len ({})", options.seq_len),
        fmt::format("{}", options.tokens_per_step));
  }
  if (config.max_position > 0 && options.seq_len > config.max_position) {
    refuse(
        "seq_len",
        fmt::format("at most the model's {} positions", config.max_position),
        fmt::format("{}", options.seq_len));
  }
  std::int64_t neurons = 0;
  for (const model::LayerConfig& layer : config.layers) {
    neurons += layer.total_width();
  }
  if (neurons == 0) refuse("method", "a model with experts", "none");
}

void check_evaluation(const TuneOptions& options, bool has_held_out) {
  if (!has_held_out) {
    const char* expected = "held-out data to judge by (--eval-data)";
    if (options.patience > 0) refuse("patience", expected, "none");
    if (options.keep_best == "yes") refuse("keep_best", expected, "none");
  }
  if (options.patience > 0 && options.eval_every == 0) {
    refuse("patience", "an eval_every of 1 or more", "0");
  }
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
