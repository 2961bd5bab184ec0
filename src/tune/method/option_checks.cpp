// SPDX-License-Identifier: Apache-2.0
#include "tune/method/option_checks.h"

#include <fmt/format.h>

#include <cmath>
#include <sstream>

#include "core/error.h"
#include "tune/method/method.h"
#include "tune/options/option_table.h"
#include "tune/options/router_options.h"

namespace fettle::tune {

namespace {

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

}  // namespace fettle::tune
