// SPDX-License-Identifier: Apache-2.0
#include "tune/tune_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace fettle::tune {

namespace {

void require(
    bool holds,
    std::string_view option,
    std::string_view expected,
    const auto& found) {
  if (holds) return;
  throw UserError(
      "tune",
      option,
      fmt::format(
          "expected {}, found {}; change this option", expected, found));
}

void check_steps(const TuneOptions& options) {
  require(options.steps >= 1, "steps", "at least 1", options.steps);
  require(options.seq_len >= 2, "seq_len", "at least 2", options.seq_len);
  require(
      options.tokens_per_step >= options.seq_len,
      "tokens_per_step",
      fmt::format("at least seq_len ({})", options.seq_len),
      options.tokens_per_step);
  require(
      options.warmup_steps >= 0,
      "warmup_steps",
      "0 or more",
      options.warmup_steps);
  require(
      options.save_every >= 0, "save_every", "0 or more", options.save_every);
  require(
      options.eval_every >= 0, "eval_every", "0 or more", options.eval_every);
}

void check_optimizer(const TuneOptions& options) {
  const auto positive = [](double x) { return std::isfinite(x) && x > 0.0; };
  const auto share = [](double x) { return x >= 0.0 && x <= 1.0; };
  const auto decay = [](double x) { return x >= 0.0 && x < 1.0; };
  require(positive(options.lr), "lr", "a positive number", options.lr);
  require(
      share(options.min_lr_ratio),
      "min_lr_ratio",
      "0 to 1",
      options.min_lr_ratio);
  require(
      std::isfinite(options.weight_decay) && options.weight_decay >= 0.0,
      "weight_decay",
      "0 or more",
      options.weight_decay);
  require(decay(options.beta1), "beta1", "0 to below 1", options.beta1);
  require(decay(options.beta2), "beta2", "0 to below 1", options.beta2);
  require(
      positive(options.epsilon),
      "epsilon",
      "a positive number",
      options.epsilon);
  require(
      std::isfinite(options.clip_norm) && options.clip_norm >= 0.0,
      "clip_norm",
      "0 or more",
      options.clip_norm);
  require(
      positive(options.router_lr),
      "router_lr",
      "a positive number",
      options.router_lr);
  require(
      options.router_warmup >= 0,
      "router_warmup",
      "0 or more",
      options.router_warmup);
}

void check_choice(const TuneOptions& options) {
  require(
      options.frac > 0.0 && options.frac <= 1.0,
      "frac",
      "above 0, at most 1",
      options.frac);
  require(
      options.scope == "global" || options.scope == "layer",
      "scope",
      "global or layer",
      options.scope);
  require(
      options.score_sequences >= 1,
      "score_sequences",
      "at least 1",
      options.score_sequences);
  require(
      options.reselect_every >= 0,
      "reselect_every",
      "0 or more",
      options.reselect_every);
  require(
      options.drop_fraction >= 0.0 && options.drop_fraction <= 1.0,
      "drop_fraction",
      "0 to 1",
      options.drop_fraction);
  require(
      options.drop_by == "delta" || options.drop_by == "moment",
      "drop_by",
      "delta or moment",
      options.drop_by);
}

}  // namespace

const std::vector<std::string>& methods() {
  static const std::vector<std::string> kMethods{"usaf"};
  return kMethods;
}

void check_options(
    const TuneOptions& options, const model::ModelConfig& config) {
  require(
      std::ranges::find(methods(), options.method) != methods().end(),
      "method",
      fmt::format("one of {}", fmt::join(methods(), ", ")),
      options.method);
  check_steps(options);
  check_optimizer(options);
  check_choice(options);
  require(
      config.max_position <= 0 || options.seq_len <= config.max_position,
      "seq_len",
      fmt::format("at most the model's {} positions", config.max_position),
      options.seq_len);
  std::int64_t neurons = 0;
  for (const model::LayerConfig& layer : config.layers) {
    neurons += layer.total_width();
  }
  require(neurons > 0, "method", "a model with experts", "none");
}

Json to_json(const TuneOptions& options) {
  return {
      {"method", options.method},
      {"steps", options.steps},
      {"tokens_per_step", options.tokens_per_step},
      {"seq_len", options.seq_len},
      {"lr", options.lr},
      {"warmup_steps", options.warmup_steps},
      {"min_lr_ratio", options.min_lr_ratio},
      {"weight_decay", options.weight_decay},
      {"beta1", options.beta1},
      {"beta2", options.beta2},
      {"epsilon", options.epsilon},
      {"clip_norm", options.clip_norm},
      {"frac", options.frac},
      {"scope", options.scope},
      {"score_sequences", options.score_sequences},
      {"reselect_every", options.reselect_every},
      {"drop_fraction", options.drop_fraction},
      {"drop_by", options.drop_by},
      {"train_router", options.train_router},
      {"router_warmup", options.router_warmup},
      {"router_lr", options.router_lr},
      {"save_every", options.save_every},
      {"eval_every", options.eval_every},
      {"seed", options.seed}};
}

}  // namespace fettle::tune
