// SPDX-License-Identifier: Apache-2.0
#include "model/layers/router.h"

#include <limits>
#include <vector>

#include "model/layers/decoded_product.h"
#include "model/layers/decoded_router.h"

namespace fettle::model {
namespace {

double score_outside(const RouterConfig& config) {
  return config.outside_groups == OutsideGroups::kZero
             ? 0.0
             : -std::numeric_limits<double>::infinity();
}

// Scores [N, E] with every expert outside its token's best groups set aside.
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
  return scores.masked_fill(kept.eq(0), score_outside(config));
}

at::Tensor choose(
    const RouterConfig& config,
    std::int64_t top_k,
    const at::Tensor& scores,
    const RouterTensors& router) {
  const at::NoGradGuard no_grad;
  at::Tensor ranked =
      router.correction.defined() ? scores + router.correction : scores;
  const auto set_aside = [&](double score) {
    for (const std::int64_t e : router.condensers) {
      ranked.select(1, e).fill_(score);
    }
  };
  std::vector<at::Tensor> columns;
  for (const std::int64_t e : router.condensers) {
    columns.push_back(
        at::full({scores.size(0), 1}, e, scores.options().dtype(at::kLong)));
  }
  if (!columns.empty()) ranked = ranked.clone();
  if (config.groups > 1) {
    set_aside(score_outside(config));
    ranked = keep_best_groups(config, ranked);
  }
  set_aside(-std::numeric_limits<double>::infinity());
  const auto left = top_k - static_cast<std::int64_t>(columns.size());
  const at::Tensor chosen = std::get<1>(ranked.topk(left, -1));
  if (columns.empty()) return chosen;
  columns.push_back(chosen);
  return at::cat(columns, 1);
}

}  // namespace

at::Tensor mixing_divisor(
    const RouterConfig& config, const at::Tensor& weights) {
  at::Tensor sum = weights.sum(-1, true);
  if (config.least_sum > 0.0) sum = sum.clamp_min(config.least_sum);
  return config.added_sum > 0.0 ? sum + config.added_sum : sum;
}

Routing route(
    const RouterConfig& config,
    std::int64_t top_k,
    const at::Tensor& x,
    const RouterTensors& router) {
  Routing routing;
  routing.logits =
      product(x.to(at::kFloat), router.weight.t(), {.decodes = router.decodes});
  if (router.bias.defined()) routing.logits = routing.logits + router.bias;
  if (router.noise.defined()) routing.logits = routing.logits + router.noise;
  if (routes_plainly(config, router, routing.logits)) {
    route_decoded(config, top_k, router, routing);
    return routing;
  }
  routing.probs = config.score == RouterScore::kSigmoid
                      ? routing.logits.sigmoid()
                      : routing.logits.softmax(-1);
  routing.selected = choose(config, top_k, routing.probs, router);
  if (config.score == RouterScore::kTopkThenSoftmax) {
    routing.weights = routing.logits.gather(1, routing.selected).softmax(-1);
  } else {
    routing.weights = routing.probs.gather(1, routing.selected);
    if (config.renormalize) {
      routing.weights =
          routing.weights / mixing_divisor(config, routing.weights);
    }
  }
  if (config.scale != 1.0) routing.weights = routing.weights * config.scale;
  routing.scales = router.scales;
  if (routing.scales.defined()) {
    // A lookup: every gradient that comes to an expert's number is added up.
    routing.weights =
        routing.weights *
        at::embedding(routing.scales.unsqueeze(1), routing.selected)
            .squeeze(-1);
  }
  return routing;
}

}  // namespace fettle::model
