// SPDX-License-Identifier: Apache-2.0
#include "trim/layer_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace fettle::trim {
namespace {

[[noreturn]] void refuse(
    std::int64_t layer, const TrimOptions& options, const std::string& why) {
  throw UserError(
      "trim", fmt::format("layer {}, score {}", layer, options.score), why);
}

[[noreturn]] void unknown_score(
    const artifact::ScoreFile& scores, const TrimOptions& options) {
  throw UserError(
      "trim",
      options.score,
      fmt::format(
          "the scores have no such name; of neurons they have [{}], of experts "
          "[{}]",
          fmt::join(scores.neuron_scores(), ", "),
          fmt::join(scores.expert_scores(), ", ")));
}

std::vector<float> to_vector(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kFloat).cpu().contiguous();
  const float* data = host.const_data_ptr<float>();
  return {data, data + host.numel()};
}

void check_finite(
    std::span<const float> values,
    std::int64_t layer,
    const TrimOptions& options) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    refuse(
        layer,
        options,
        fmt::format("value {} is {}; run fettle analyze again", i, values[i]));
  }
}

void check_size(
    const std::vector<float>& values,
    std::int64_t expected,
    std::int64_t layer,
    const TrimOptions& options) {
  if (static_cast<std::int64_t>(values.size()) == expected) return;
  refuse(
      layer,
      options,
      fmt::format(
          "expected {} values, found {}; run fettle analyze again",
          expected,
          values.size()));
}

LayerValues normalised(
    std::vector<float> scores, std::int64_t layer, const TrimOptions& options) {
  LayerValues result{std::move(scores), {}};
  result.values.assign(result.scores.begin(), result.scores.end());
  if (options.normalise == Normalise::kSqrt) {
    for (double& value : result.values) {
      if (value < 0) {
        refuse(layer, options, "normalise sqrt needs scores of at least 0");
      }
      value = std::sqrt(value);
    }
  }
  if (options.normalise == Normalise::kLayerMean && !result.values.empty()) {
    const double mean =
        std::accumulate(result.values.begin(), result.values.end(), 0.0) /
        static_cast<double>(result.values.size());
    if (mean > 0) {
      for (double& value : result.values) value /= mean;
    }
  }
  return result;
}

// Gives each neuron the mean of its block, so that neighbours rank as one. The
// short block at an expert's end ranks with the least of the others, behind it.
void rank_by_blocks(
    const std::vector<std::int64_t>& widths,
    std::int64_t block,
    LayerValues& layer) {
  auto expert = layer.values.begin();
  for (const std::int64_t width : widths) {
    const auto end = expert + width;
    double least = std::numeric_limits<double>::infinity();
    auto next = expert;
    for (; end - next >= block; next += block) {
      const double mean =
          std::accumulate(next, next + block, 0.0) / static_cast<double>(block);
      std::fill(next, next + block, mean);
      least = std::min(least, mean);
    }
    if (next != expert) std::fill(next, end, least);
    expert = end;
  }
  std::ranges::transform(layer.values, layer.scores.begin(), [](double value) {
    return static_cast<float>(value);
  });
}

}  // namespace

LayerValues neuron_values(
    const artifact::ScoreFile& scores,
    std::int64_t layer,
    const TrimOptions& options) {
  const artifact::LayerScores& entry = scores.layers[layer];
  const auto found = entry.neuron.find(options.score);
  if (found == entry.neuron.end()) {
    if (entry.expert.contains(options.score)) {
      refuse(layer, options, "it scores whole experts; use unit expert");
    }
    unknown_score(scores, options);
  }
  std::vector<float> values = to_vector(found->second);
  check_size(values, entry.total_width(), layer, options);
  check_finite(values, layer, options);
  LayerValues result = normalised(std::move(values), layer, options);
  if (options.block > 1 && options.unit != TrimUnit::kExpert) {
    rank_by_blocks(entry.widths, options.block, result);
  }
  return result;
}

LayerValues expert_values(
    const artifact::ScoreFile& scores,
    std::int64_t layer,
    const TrimOptions& options) {
  const artifact::LayerScores& entry = scores.layers[layer];
  std::vector<float> values;
  if (const auto found = entry.expert.find(options.score);
      found != entry.expert.end()) {
    values = to_vector(found->second);
    check_size(values, entry.num_experts(), layer, options);
    check_finite(values, layer, options);
    return normalised(std::move(values), layer, options);
  }
  TrimOptions plain = options;
  plain.normalise = Normalise::kNone;
  const LayerValues neurons = neuron_values(scores, layer, plain);
  auto next = neurons.scores.begin();
  for (const std::int64_t width : entry.widths) {
    values.push_back(
        static_cast<float>(std::accumulate(next, next + width, 0.0)));
    next += width;
  }
  return normalised(std::move(values), layer, options);
}

}  // namespace fettle::trim
