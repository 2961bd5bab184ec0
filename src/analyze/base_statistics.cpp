// SPDX-License-Identifier: Apache-2.0
#include "analyze/base_statistics.h"

#include <algorithm>

namespace fettle::analyze {

void BaseStatistics::on_routing(std::int64_t, const model::RoutingView& view) {
  const at::NoGradGuard no_grad;
  // Sigmoid routers give no distribution: their scores are made one.
  const at::Tensor p = view.probs / view.probs.sum(1, true);
  entropy_.add_all(at::special_entr(p).sum(at::kDouble));
  routed_.add_all(at::full({}, view.probs.size(0), at::kDouble));
  tokens_.add_all(routed_tokens(view));
}

void BaseStatistics::on_expert(std::int64_t, const model::ExpertView& view) {
  const at::NoGradGuard no_grad;
  h_.add(view.expert, view.h.sum(0, false, at::kFloat));
}

void finish_base(const Sums& sums, artifact::LayerScores& layer) {
  const at::Tensor& tokens = values_of(sums, "tokens");
  layer.mean_h = values_of(sums, "h")
                     .div(per_neuron(tokens.clamp_min(1), layer.widths))
                     .to(at::kFloat);
  layer.tokens = tokens.to(at::kLong);
  layer.router_entropy =
      values_of(sums, "entropy").item<double>() /
      std::max(values_of(sums, "routed").item<double>(), 1.0);
}

}  // namespace fettle::analyze
