// SPDX-License-Identifier: Apache-2.0
#include "tune/method.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "tune/router_weights.h"
#include "tune/sparse_neurons.h"

namespace fettle::tune {

namespace {

AdamWOptions adamw_options(const TuneOptions& options) {
  return {options.beta1, options.beta2, options.epsilon, options.weight_decay};
}

std::unique_ptr<TrainablePart> sparse_neurons(
    const TuneOptions& options,
    const model::ModelReader& reader,
    at::Device device) {
  return std::make_unique<SparseNeurons>(
      reader,
      device,
      SparseNeuronsOptions{
          .frac = options.frac,
          .scope = options.scope == "layer" ? Scope::kLayer : Scope::kGlobal,
          .score_sequences = options.score_sequences,
          .reselect_every = options.reselect_every,
          .drop_fraction = options.drop_fraction,
          .drop_by =
              options.drop_by == "moment" ? DropBy::kMoment : DropBy::kDelta,
          .schedule =
              {options.lr,
               options.warmup_steps,
               options.steps,
               options.min_lr_ratio},
          .adamw = adamw_options(options)});
}

std::unique_ptr<TrainablePart> router_weights(
    const TuneOptions& options,
    const model::ModelReader& reader,
    at::Device device) {
  return std::make_unique<RouterWeights>(
      reader,
      device,
      RouterWeightsOptions{
          .frozen_steps = options.router_warmup,
          .schedule =
              {options.router_lr,
               options.warmup_steps,
               options.steps - options.router_warmup,
               options.min_lr_ratio},
          .adamw = adamw_options(options)});
}

}  // namespace

std::vector<std::unique_ptr<TrainablePart>> make_parts(
    const TuneOptions& options,
    const model::ModelReader& reader,
    at::Device device) {
  std::vector<std::unique_ptr<TrainablePart>> parts;
  parts.push_back(sparse_neurons(options, reader, device));
  if (options.train_router) {
    parts.push_back(router_weights(options, reader, device));
  }
  return parts;
}

std::int64_t part_bytes(
    const TuneOptions& options, const model::ModelConfig& config) {
  std::int64_t neurons = 0;
  std::int64_t widest = 0;         // neurons of a layer
  std::int64_t widest_expert = 0;  // neurons
  std::int64_t routers = 0;
  for (const model::LayerConfig& layer : config.layers) {
    neurons += layer.total_width();
    widest = std::max(widest, layer.total_width());
    routers += layer.num_experts();
    for (const std::int64_t width : layer.expert_widths) {
      widest_expert = std::max(widest_expert, width);
    }
  }
  double frozen = 0.0;  // as a share of the chosen ones
  for (std::int64_t s = options.reselect_every; s > 0 && s < options.steps;
       s += options.reselect_every) {
    frozen += drop_share(options.drop_fraction, s, options.steps);
  }
  const double chosen = std::ceil(options.frac * static_cast<double>(neurons));
  const double left = static_cast<double>(neurons) - chosen;
  // A layer's update, and a new choice in it, work on copies of its rows.
  const double working = std::min<double>(
      static_cast<double>(widest),
      options.scope == "layer"
          ? std::ceil(options.frac * static_cast<double>(widest))
          : chosen);
  const double rows =
      16.0 * chosen + 4.0 * std::min(frozen * chosen, left) + 24.0 * working;
  const auto hidden = static_cast<double>(config.hidden_size);
  double bytes = 3.0 * hidden * rows + 8.0 * static_cast<double>(neurons);
  // Scoring forms the gradient of one expert's gate and up in each thread.
  bytes += 8.0 * hidden * static_cast<double>(widest_expert) *
           static_cast<double>(at::get_num_threads());
  if (options.train_router) {
    bytes += 16.0 * hidden * static_cast<double>(routers);
  }
  return static_cast<std::int64_t>(bytes);
}

}  // namespace fettle::tune
