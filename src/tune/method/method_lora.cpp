// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_lora.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "core/error.h"
#include "model/layers/layer_tap.h"
#include "tune/low_rank/low_rank.h"
#include "tune/method/method_options.h"

namespace fettle::tune {

namespace {

LowRankKinds kinds_of(const TuneOptions& options) {
  LowRankKinds kinds;
  // With an end to the last word too, so that an empty one is seen.
  std::istringstream stream(options.lora_targets + ",");
  bool any = false;
  for (std::string word; std::getline(stream, word, ','); any = true) {
    bool* kind = word == "experts"     ? &kinds.experts
                 : word == "attention" ? &kinds.attention
                 : word == "shared"    ? &kinds.shared
                 : word == "dense"     ? &kinds.dense
                                       : nullptr;
    if (kind != nullptr) {
      *kind = true;
      continue;
    }
    any = false;
    break;
  }
  if (any) return kinds;
  throw UserError(
      "tune",
      "lora_targets",
      fmt::format(
          "expected some of experts, attention, shared, dense, joined by "
          "commas, found '{}'; change this option",
          options.lora_targets));
}

// Beyond the smaller side of a matrix a pair holds nothing more.
void check_rank(const TuneOptions& options, const model::ModelConfig& config) {
  std::int64_t most = TuneOptions{}.rank;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    for (const auto& target : low_rank_targets(kinds_of(options), config, l)) {
      for (std::int64_t e = 0; e < target.matrices(); ++e) {
        most = std::max(most, std::min(target.rows(e), target.columns));
      }
    }
  }
  if (options.rank <= most) return;
  throw UserError(
      "tune",
      "rank",
      fmt::format(
          "expected at most {}, the smaller side of the largest matrix, found "
          "{}; a higher rank holds nothing more",
          most,
          options.rank));
}

std::vector<model::Role> lora_roles(
    const TuneOptions& options, const model::ModelConfig& config) {
  check_rank(options, config);
  return low_rank_roles(kinds_of(options));
}

Parts lora_make(const PartInput& input) {
  const TuneOptions& options = input.options;
  Parts parts;
  parts.push_back(std::make_unique<LowRank>(
      input.reader,
      input.device,
      LowRankOptions{
          .kinds = kinds_of(options),
          .rank = options.rank,
          .alpha = options.lora_alpha,
          .seed = options.seed,
          .schedule = schedule_of(options, kLoraMethod.name),
          .adamw = adamw_options(options),
          .owners = input.owners}));
  return parts;
}

// What a layer's targets come to.
struct LayerSizes {
  double pairs = 0.0;     // values
  double rows = 0.0;      // of pairs
  double targets = 0.0;   // values of the weights themselves
  double matrices = 0.0;  // of these, those whose gradients are formed
};

LayerSizes sizes_of(
    const TuneOptions& options,
    const model::ModelConfig& config,
    std::int64_t layer) {
  LayerSizes sizes;
  const auto rank = static_cast<double>(options.rank);
  for (const auto& target :
       low_rank_targets(kinds_of(options), config, layer)) {
    const auto rows = static_cast<double>(target.rows());
    const auto columns = static_cast<double>(target.columns);
    const double right_rows = rank * static_cast<double>(target.matrices());
    sizes.pairs += rank * rows + right_rows * columns;
    sizes.rows += rows + right_rows;
    sizes.targets += rows * columns;
    if (!model::is_tapped(target.role)) sizes.matrices += rows * columns;
  }
  return sizes;
}

// Per value of a pair: itself, two moments and a gradient; per row its age.
// Then once: two layers' sums, since the next is made before the last is let
// go, the gradients that are formed, and an update's working set, or the halves
// of factors that a card multiplies.
PartBytes lora_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    at::Device device) {
  double kept = 0.0;
  double divided = 0.0;
  LayerSizes largest;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const LayerSizes sizes = sizes_of(options, config, l);
    kept += 16.0 * sizes.pairs + 8.0 * sizes.rows;
    divided += 12.0 * sizes.pairs;
    largest.pairs = std::max(largest.pairs, sizes.pairs);
    largest.targets = std::max(largest.targets, sizes.targets);
    largest.matrices = std::max(largest.matrices, sizes.matrices);
  }
  return at_work(
      kept + 8.0 * largest.targets + 8.0 * largest.matrices +
          (device.is_cpu() ? 8.0 : 16.0) * largest.pairs,
      device,
      divided);
}

}  // namespace

std::int64_t lora_graph_bytes(
    const TuneOptions& options, const model::ModelConfig& config) {
  if (!has_method(options, kLoraMethod.name)) return 0;
  double values = 0.0;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    values += sizes_of(options, config, l).targets;
  }
  return static_cast<std::int64_t>(4.0 * values);
}

const Method kLoraMethod{
    "lora",
    "low-rank pairs beside experts, attention and other MLPs",
    lora_roles,
    lora_make,
    lora_bytes};

}  // namespace fettle::tune
