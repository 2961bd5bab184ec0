// SPDX-License-Identifier: Apache-2.0
#include "analyze/ranking.h"

#include <algorithm>

#include "analyze/finish.h"

namespace fettle::analyze {
namespace {

// Whether a neuron is among the better half; the middle one of an odd number
// is not.
at::Tensor upper_half(const at::Tensor& ranks) {
  const at::Tensor order = ranks.argsort();
  at::Tensor upper = at::zeros_like(ranks, at::kBool);
  upper.index_fill_(0, order.narrow(0, 0, ranks.numel() / 2), true);
  return upper;
}

}  // namespace

std::vector<at::Tensor> rank_neurons(
    const artifact::ScoreFile& scores, const std::string& score) {
  std::vector<at::Tensor> values;
  std::vector<std::int64_t> sizes;
  for (const artifact::LayerScores& layer : scores.layers) {
    sizes.push_back(layer.total_width());
    values.push_back(
        layer.widths.empty() ? at::zeros({0}) : layer.neuron.at(score));
  }
  const at::Tensor all = at::cat(values);
  const at::Tensor order = all.argsort(
      /*stable=*/true, /*dim=*/0, /*descending=*/true);
  at::Tensor ranks = at::empty({all.numel()}, at::kInt);
  ranks.index_copy_(0, order, at::arange(all.numel(), at::kInt));
  std::vector<at::Tensor> by_layer;
  for (const at::Tensor& part : ranks.split_with_sizes(sizes)) {
    by_layer.push_back(part.contiguous());
  }
  return by_layer;
}

std::vector<std::string> data_scores(const artifact::ScoreFile& scores) {
  std::vector<std::string> names;
  for (const std::string& name : scores.neuron_scores()) {
    for (const artifact::LayerScores& layer : scores.layers) {
      if (layer.widths.empty()) continue;
      const Sums sums = take_sums(layer, name);
      const bool same = std::ranges::all_of(sums, [](const auto& entry) {
        return entry.second.reduction == Reduction::kSame;
      });
      if (!same) names.push_back(name);
      break;
    }
  }
  return names;
}

double overlap(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = upper_half(a);
  const at::Tensor y = upper_half(b);
  const auto both = x.logical_and(y).sum().item<std::int64_t>();
  const auto any = x.logical_or(y).sum().item<std::int64_t>();
  return any == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(any);
}

}  // namespace fettle::analyze
