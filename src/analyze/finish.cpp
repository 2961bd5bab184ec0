// SPDX-License-Identifier: Apache-2.0
#include "analyze/finish.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "analyze/base_statistics.h"
#include "analyze/layer_sums.h"
#include "core/error.h"

namespace fettle::analyze {
namespace {

void check_finite(
    const artifact::LayerScores& layer,
    std::int64_t index,
    std::string_view name,
    const at::Tensor& values) {
  const at::Tensor bad = at::isfinite(values).logical_not();
  if (!bad.any().item<bool>()) return;
  const auto first = bad.to(at::kLong).argmax().item<std::int64_t>();
  std::int64_t expert = first;
  if (!layer.expert.contains(std::string(name))) {
    const auto offsets = neuron_offsets(layer.widths);
    expert = std::ranges::upper_bound(offsets, first) - offsets.begin() - 1;
  }
  throw UserError(
      "analyze",
      fmt::format("layer {}, expert {}", index, expert),
      fmt::format(
          "score {} is not finite; check the model's weights, or compute in "
          "fp32",
          name));
}

}  // namespace

void put_sums(
    artifact::LayerScores& layer, std::string_view score, const Sums& sums) {
  for (const auto& [name, sum] : sums) {
    layer.sums[fmt::format("{}.{}", score, name)] = sum;
  }
}

Sums take_sums(const artifact::LayerScores& layer, std::string_view score) {
  const std::string prefix = fmt::format("{}.", score);
  Sums sums;
  for (const auto& [name, sum] : layer.sums) {
    if (name.starts_with(prefix)) sums[name.substr(prefix.size())] = sum;
  }
  return sums;
}

void finish_layer(
    artifact::LayerScores& layer,
    const std::vector<std::string>& scores,
    std::int64_t index) {
  if (layer.widths.empty()) return;
  const at::NoGradGuard no_grad;
  for (const std::string& name : scores) {
    const ScoreMethod& method = find_score(name);
    at::Tensor values = method.score(take_sums(layer, name), layer.widths);
    auto& into = method.unit == Unit::kNeuron ? layer.neuron : layer.expert;
    into[name] = std::move(values);
    check_finite(layer, index, name, into[name]);
  }
  finish_base(take_sums(layer, kBase), layer);
  check_finite(layer, index, "mean_h", layer.mean_h);
}

}  // namespace fettle::analyze
