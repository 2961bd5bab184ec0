// SPDX-License-Identifier: Apache-2.0
#include "tune/method_usaf.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "tune/method_options.h"
#include "tune/sparse_neurons.h"

namespace fettle::tune {

namespace {

std::vector<model::Role> usaf_roles(const TuneOptions&) {
  return {
      model::Role::kExpertGate,
      model::Role::kExpertUp,
      model::Role::kExpertDown};
}

Parts usaf_make(const PartInput& input) {
  const TuneOptions& options = input.options;
  Parts parts;
  parts.push_back(std::make_unique<SparseNeurons>(
      input.reader,
      input.device,
      SparseOptions{
          .frac = options.frac,
          .scope = options.scope == "layer" ? Scope::kLayer : Scope::kGlobal,
          .score_sequences = options.score_sequences,
          .reselect_every = options.reselect_every,
          .drop_fraction = options.drop_fraction,
          .drop_by =
              options.drop_by == "moment" ? DropBy::kMoment : DropBy::kDelta,
          .schedule = schedule_of(options),
          .adamw = adamw_options(options)}));
  return parts;
}

// Rows that new choices leave frozen, as a share of the chosen ones.
double frozen_share(const TuneOptions& options) {
  double share = 0.0;
  for (std::int64_t s = options.reselect_every; s > 0 && s < options.steps;
       s += options.reselect_every) {
    share += drop_share(options.drop_fraction, s, options.steps);
  }
  return share;
}

double usaf_bytes(
    const TuneOptions& options, const model::ModelConfig& config) {
  std::int64_t neurons = 0;
  std::int64_t widest = 0;         // neurons of a layer
  std::int64_t widest_expert = 0;  // neurons
  for (const model::LayerConfig& layer : config.layers) {
    neurons += layer.total_width();
    widest = std::max(widest, layer.total_width());
    for (const std::int64_t width : layer.expert_widths) {
      widest_expert = std::max(widest_expert, width);
    }
  }
  const double chosen = std::ceil(options.frac * static_cast<double>(neurons));
  const double left = static_cast<double>(neurons) - chosen;
  // A layer's update, and a new choice in it, work on copies of its rows.
  const double working = std::min<double>(
      static_cast<double>(widest),
      options.scope == "layer"
          ? std::ceil(options.frac * static_cast<double>(widest))
          : chosen);
  const double rows = 16.0 * chosen +
                      4.0 * std::min(frozen_share(options) * chosen, left) +
                      24.0 * working;
  const auto hidden = static_cast<double>(config.hidden_size);
  // Scoring forms the gradient of one expert's gate and up in each thread.
  return 3.0 * hidden * rows + 8.0 * static_cast<double>(neurons) +
         8.0 * hidden * static_cast<double>(widest_expert) *
             static_cast<double>(at::get_num_threads());
}

}  // namespace

const Method kUsafMethod{
    "usaf",
    "the few neurons of all experts with the largest gradients",
    usaf_roles,
    usaf_make,
    usaf_bytes};

}  // namespace fettle::tune
