// SPDX-License-Identifier: Apache-2.0
// Score files and configurations made by hand for tests of planning.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>
#include <vector>

#include "../artifact/tiny_model.h"
#include "artifact/score_file.h"
#include "artifact/trim_plan.h"

namespace fettle::trim::testing {

// Scores of each layer's neurons, experts in order.
inline artifact::ScoreFile neuron_scores(
    const model::ModelConfig& config,
    const std::vector<std::vector<float>>& values,
    const std::string& name = "obs") {
  artifact::ScoreFile file;
  file.model_fingerprint = "abc";
  file.tokens = 1;
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    artifact::LayerScores layer;
    layer.widths = config.layers[l].expert_widths;
    if (!layer.widths.empty()) {
      layer.neuron[name] = at::tensor(values[l]);
      layer.mean_h = at::zeros({layer.total_width()});
      layer.tokens = at::ones({layer.num_experts()}, at::kLong);
    }
    file.layers.push_back(std::move(layer));
  }
  return file;
}

inline void add_expert_scores(
    artifact::ScoreFile& file,
    const std::string& name,
    const std::vector<std::vector<float>>& values) {
  for (std::size_t l = 0; l < file.layers.size(); ++l) {
    if (!file.layers[l].widths.empty()) {
      file.layers[l].expert[name] = at::tensor(values[l]);
    }
  }
}

// Widths kept, by layer and expert of the plan.
inline std::vector<std::vector<std::int64_t>> kept_widths(
    const artifact::TrimPlan& plan) {
  std::vector<std::vector<std::int64_t>> widths;
  for (const artifact::LayerPlan& layer : plan.layers) {
    widths.emplace_back();
    for (const artifact::ExpertPlan& expert : layer.experts) {
      widths.back().push_back(static_cast<std::int64_t>(expert.neurons.size()));
    }
  }
  return widths;
}

inline std::vector<std::int64_t> kept_experts(
    const artifact::TrimPlan& plan, std::size_t layer) {
  std::vector<std::int64_t> experts;
  for (const artifact::ExpertPlan& expert : plan.layers[layer].experts) {
    experts.push_back(expert.expert);
  }
  return experts;
}

}  // namespace fettle::trim::testing
