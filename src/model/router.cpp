// SPDX-License-Identifier: Apache-2.0
#include "model/router.h"

#include "core/error.h"

namespace fettle::model {
namespace {

// Scores [N, E] with 0 for every expert outside its token's best groups.
at::Tensor keep_best_groups(
    const RouterConfig& config, const at::Tensor& scores) {
  const std::int64_t tokens = scores.size(0);
  const std::int64_t experts = scores.size(1);
  const at::Tensor grouped = scores.view({tokens, config.groups, -1});
  const at::Tensor group_scores =
      config.group_score == GroupScore::kMax
          ? grouped.amax(-1)
          : std::get<0>(grouped.topk(2, -1)).sum(-1);
  const at::Tensor best =
      std::get<1>(group_scores.topk(config.topk_groups, -1));
  const at::Tensor kept =
      at::zeros_like(group_scores)
          .scatter_(1, best, 1.0)
          .unsqueeze(-1)
          .expand({tokens, config.groups, experts / config.groups})
          .reshape({tokens, experts});
  return scores.masked_fill(kept.eq(0), 0.0);
}

at::Tensor choose(
    const RouterConfig& config,
    std::int64_t top_k,
    const at::Tensor& scores,
    const at::Tensor& correction) {
  const at::NoGradGuard no_grad;
  at::Tensor ranked = correction.defined() ? scores + correction : scores;
  if (config.groups > 1) ranked = keep_best_groups(config, ranked);
  return std::get<1>(ranked.topk(top_k, -1));
}

}  // namespace

Routing route(
    const RouterConfig& config,
    std::int64_t top_k,
    const at::Tensor& x,
    const at::Tensor& weight,
    const at::Tensor& correction) {
  Routing routing;
  routing.logits = at::mm(x.to(at::kFloat), weight.t());
  routing.probs = config.score == RouterScore::kSigmoid
                      ? routing.logits.sigmoid()
                      : routing.logits.softmax(-1);
  routing.selected = choose(config, top_k, routing.probs, correction);
  if (config.score == RouterScore::kTopkThenSoftmax) {
    routing.weights = routing.logits.gather(1, routing.selected).softmax(-1);
  } else {
    routing.weights = routing.probs.gather(1, routing.selected);
    if (config.renormalize) {
      routing.weights = routing.weights / routing.weights.sum(-1, true);
    }
  }
  if (config.scale != 1.0) routing.weights = routing.weights * config.scale;
  return routing;
}

}  // namespace fettle::model
