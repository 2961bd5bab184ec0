// SPDX-License-Identifier: Apache-2.0
#include "model/layers/decoded_router.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "core/error.h"

namespace fettle::model {
namespace {

using Floats = std::span<float>;

void softmax(std::span<const float> logits, Floats out) {
  float top = logits[0];
  // A NaN stays.
  for (const float z : logits) top = z <= top ? top : z;
  float sum = 0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    sum += out[e] = std::exp(logits[e] - top);
  }
  for (float& share : out) share /= sum;
}

void score(
    const RouterConfig& config, std::span<const float> logits, Floats probs) {
  if (config.score != RouterScore::kSigmoid) return softmax(logits, probs);
  for (std::size_t e = 0; e < logits.size(); ++e) {
    probs[e] = 1.0f / (1.0f + std::exp(-logits[e]));
  }
}

// A NaN ranks above all, as in libtorch's topk.
bool ranks_above(float a, float b) {
  return a > b || (std::isnan(a) && !std::isnan(b));
}

// The numbers of the best, best first.
void choose(
    std::span<const float> ranked,
    std::span<std::int64_t> all,
    std::span<std::int64_t> best) {
  std::iota(all.begin(), all.end(), 0);
  const auto above = [&](std::int64_t a, std::int64_t b) {
    const float x = ranked[static_cast<std::size_t>(a)];
    const float y = ranked[static_cast<std::size_t>(b)];
    return ranks_above(x, y) || (!ranks_above(y, x) && a < b);
  };
  const auto end = all.begin() + std::ssize(best);
  std::partial_sort(all.begin(), end, all.end(), above);
  std::copy(all.begin(), end, best.begin());
}

// Mixing weights of the chosen ones.
void weigh(
    const RouterConfig& config,
    std::span<const float> scores,
    std::span<const std::int64_t> chosen,
    Floats weights) {
  for (std::size_t k = 0; k < chosen.size(); ++k) {
    weights[k] = scores[static_cast<std::size_t>(chosen[k])];
  }
  if (config.score == RouterScore::kTopkThenSoftmax) {
    softmax(weights, weights);
  } else if (config.renormalize) {
    float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
    // A NaN stays.
    if (config.least_sum > 0.0 && sum < config.least_sum) {
      sum = static_cast<float>(config.least_sum);
    }
    sum += static_cast<float>(config.added_sum);
    for (float& w : weights) w /= sum;
  }
  const float scale = static_cast<float>(config.scale);
  if (scale != 1.0f) {
    for (float& w : weights) w *= scale;
  }
}

template <class T>
std::span<T> row(const at::Tensor& matrix, std::int64_t n) {
  const std::int64_t size = matrix.size(1);
  return {
      matrix.mutable_data_ptr<T>() + n * size, static_cast<std::size_t>(size)};
}

}  // namespace

bool routes_plainly(
    const RouterConfig& config,
    const RouterTensors& router,
    const at::Tensor& logits) {
  return router.decodes && !at::GradMode::is_enabled() && logits.is_cpu() &&
         config.groups == 1 && router.condensers.empty() &&
         !router.noise.defined();
}

void route_decoded(
    const RouterConfig& config,
    std::int64_t top_k,
    const RouterTensors& router,
    Routing& routing) {
  const at::Tensor& logits = routing.logits;
  const std::int64_t tokens = logits.size(0);
  const std::int64_t experts = logits.size(1);
  FETTLE_ASSERT(logits.is_contiguous() && top_k <= experts);
  routing.probs = at::empty_like(logits);
  routing.weights = at::empty({tokens, top_k}, logits.options());
  routing.selected =
      at::empty({tokens, top_k}, logits.options().dtype(at::kLong));
  const auto given = [](const at::Tensor& t) {
    return t.defined() ? t.to(at::kFloat).contiguous() : at::Tensor();
  };
  const at::Tensor correction = given(router.correction);
  const at::Tensor scales = given(router.scales);
  routing.scales = router.scales;
  std::vector<std::int64_t> all(static_cast<std::size_t>(experts));
  std::vector<float> ranked(static_cast<std::size_t>(experts));
  for (std::int64_t n = 0; n < tokens; ++n) {
    const Floats z = row<float>(logits, n),
                 probs = row<float>(routing.probs, n);
    const Floats weights = row<float>(routing.weights, n);
    const auto selected = row<std::int64_t>(routing.selected, n);
    score(config, z, probs);
    std::ranges::copy(probs, ranked.begin());
    if (correction.defined()) {
      const float* add = correction.const_data_ptr<float>();
      for (float& r : ranked) r += *add++;
    }
    choose(ranked, all, selected);
    const bool late = config.score == RouterScore::kTopkThenSoftmax;
    weigh(config, late ? z : probs, selected, weights);
    if (!scales.defined()) continue;
    const float* by = scales.const_data_ptr<float>();
    for (std::size_t k = 0; k < weights.size(); ++k)
      weights[k] *= by[selected[k]];
  }
}

}  // namespace fettle::model
