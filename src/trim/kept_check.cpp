// SPDX-License-Identifier: Apache-2.0
#include "trim/kept_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/error.h"

namespace fettle::trim {
namespace {

std::int64_t kept_neurons(const artifact::LayerPlan& layer) {
  std::int64_t kept = 0;
  for (const artifact::ExpertPlan& expert : layer.experts) {
    kept += expert.width();
  }
  return kept;
}

std::string asked(const TrimOptions& options) {
  return options.keep ? fmt::format("keep {:.6g}", *options.keep)
                      : "a budget of " + format_bytes(*options.budget);
}

// The largest power of two that a kept expert has room for.
std::int64_t fitting_round(
    const model::ModelConfig& config, const TrimOptions& options) {
  if (!options.keep) return 1;
  const double width =
      *options.keep * static_cast<double>(widest_expert(config));
  std::int64_t round = 1;
  while (static_cast<double>(2 * round) <= width) round *= 2;
  return round;
}

std::string what_to_do(
    const model::ModelConfig& config, const TrimOptions& options) {
  if (options.max_width > 0 && options.max_width < options.round) {
    return fmt::format(
        "--max-width {} is less than one step of --round {}",
        options.max_width,
        options.round);
  }
  const char* const more =
      options.keep ? "a larger --keep" : "a larger --budget";
  if (options.round > 1) {
    return fmt::format(
        "widths go by steps of --round {}: use a smaller one{}, {}, or "
        "--min-width {}",
        options.round,
        options.keep
            ? fmt::format(" (such as {})", fitting_round(config, options))
            : "",
        more,
        options.round);
  }
  return fmt::format(
      "use {}, --min-width 1{}",
      more,
      options.scope == Scope::kGlobal ? ", or --scope layer" : "");
}

struct Counts {
  std::int64_t kept = 0;
  std::int64_t all = 0;
};

Counts counts(
    const artifact::TrimPlan& plan,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  Counts sum;
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const bool experts = options.unit == TrimUnit::kExpert;
    sum.kept += experts ? std::ssize(plan.layers[l].experts)
                        : kept_neurons(plan.layers[l]);
    sum.all += experts ? config.layers[l].num_experts()
                       : config.layers[l].total_width();
  }
  return sum;
}

std::string bounds(const TrimOptions& options) {
  std::vector<std::string> reasons;
  if (options.max_width > 0) {
    reasons.push_back(fmt::format("--max-width {}", options.max_width));
  }
  if (options.min_width > 0) {
    reasons.push_back(fmt::format("--min-width {}", options.min_width));
  }
  if (options.round > 1) {
    reasons.push_back(fmt::format("--round {}", options.round));
  }
  if (options.widths != WidthRule::kFree) {
    reasons.emplace_back("experts of equal widths");
  }
  if (options.unit == TrimUnit::kExpert) reasons.emplace_back("whole experts");
  std::string text;
  for (std::size_t i = 0; i < reasons.size(); ++i) {
    text += i == 0 ? "" : (i + 1 < reasons.size() ? ", " : " and ");
    text += reasons[i];
  }
  return text.empty() ? "the floors of its experts" : text;
}

}  // namespace

std::int64_t widest_expert(const model::ModelConfig& config) {
  std::int64_t widest = 0;
  for (const model::LayerConfig& layer : config.layers) {
    for (const std::int64_t width : layer.expert_widths) {
      widest = std::max(widest, width);
    }
  }
  return widest;
}

void require_neurons(
    const artifact::TrimPlan& plan,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  std::vector<std::int64_t> empty;
  std::int64_t with_neurons = 0;
  std::int64_t neurons = 0;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const std::int64_t width = config.layers[l].total_width();
    if (width == 0) continue;
    ++with_neurons;
    neurons += width;
    if (kept_neurons(plan.layers[l]) == 0) empty.push_back(l);
  }
  if (empty.empty()) return;
  const bool all = std::ssize(empty) == with_neurons;
  throw UserError(
      "trim",
      options.keep ? "keep" : "budget",
      fmt::format(
          "{} leaves {} none of {} {} neurons{}; {}",
          asked(options),
          all ? std::string("the model")
              : fmt::format("layer {}", empty.front()),
          all ? "its" : "the layer's",
          all ? neurons : config.layers[empty.front()].total_width(),
          !all && empty.size() > 1
              ? fmt::format(" (and {} more layers none)", empty.size() - 1)
              : "",
          what_to_do(config, options)));
}

std::string share_note(
    const artifact::TrimPlan& plan,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  if (!options.keep || options.unit == TrimUnit::kMixed) return "";
  const Counts sum = counts(plan, config, options);
  if (sum.all == 0) return "";
  const double share =
      static_cast<double>(sum.kept) / static_cast<double>(sum.all);
  if (std::abs(share - *options.keep) <= 0.005) return "";
  return fmt::format(
      "keeps {:.3g} of the {}, the nearest to {:.3g} with {}",
      share,
      options.unit == TrimUnit::kExpert ? "experts" : "neurons",
      *options.keep,
      bounds(options));
}

}  // namespace fettle::trim
