// SPDX-License-Identifier: Apache-2.0
#include "tune/method/expert_shares.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace fettle::tune {

ExpertShares::ExpertShares(const model::ModelConfig& config, ShareOf kind)
    : kind_(kind) {
  for (const model::LayerConfig& layer : config.layers) {
    sums_.push_back(at::zeros({layer.num_experts()}, at::kDouble));
  }
}

void ExpertShares::on_routing(
    std::int64_t layer, const model::RoutingView& view) {
  const at::NoGradGuard no_grad;
  const at::Tensor chosen = view.selected.flatten().cpu();
  const at::Tensor amounts = kind_ == ShareOf::kTokens
                                 ? at::ones({chosen.size(0)}, at::kDouble)
                                 : view.weights.flatten().cpu().to(at::kDouble);
  sums_[layer].index_add_(0, chosen, amounts);
}

void ExpertShares::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  if (pass == sweep::Pass::kForward) before_.show(sums_[layer], visit);
}

void ExpertShares::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass == sweep::Pass::kForward) before_.end(sums_[layer]);
}

std::vector<std::vector<double>> ExpertShares::shares() const {
  std::vector<std::vector<double>> result;
  for (const at::Tensor& sums : sums_) {
    auto& layer = result.emplace_back();
    if (sums.size(0) == 0) continue;
    const double total = sums.sum().item<double>();
    if (!(total > 0.0)) {
      throw UserError(
          "tune",
          "score_sequences",
          "expected tokens that choose experts, found none; give more data");
    }
    const double* values = sums.const_data_ptr<double>();
    for (std::int64_t e = 0; e < sums.size(0); ++e) {
      layer.push_back(values[e] / total);
    }
  }
  return result;
}

std::vector<std::int64_t> fewest_experts(
    const std::vector<double>& shares, double share) {
  std::vector<std::int64_t> order(shares.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) {
    return shares[a] > shares[b];
  });
  double held = 0.0;
  std::size_t count = 0;
  // Sums of fractions miss 1 by rounding.
  while (count < order.size() && held < share * (1.0 - 1e-12)) {
    held += shares[order[count++]];
  }
  order.resize(count);
  std::ranges::sort(order);
  return order;
}

}  // namespace fettle::tune
