// SPDX-License-Identifier: Apache-2.0
#include "model/layers/router_training.h"

#include <cmath>

#include "core/rng.h"

namespace fettle::model {

at::Tensor gumbel_noise(
    const RouterTraining& training,
    std::int64_t layer,
    std::int64_t first,
    std::int64_t count,
    std::int64_t experts) {
  at::Tensor noise = at::empty({count, experts}, at::kFloat);
  auto* values = noise.mutable_data_ptr<float>();
  // A stream for each layer of each step.
  constexpr std::uint64_t kLayers = 1 << 20;
  Rng rng(Rng::State{
      training.seed,
      training.step * kLayers + static_cast<std::uint64_t>(layer),
      static_cast<std::uint64_t>(first * experts)});
  for (std::int64_t i = 0; i < count * experts; ++i) {
    // 0 would give infinity.
    const double u = std::max(rng.uniform(), 0x1p-53);
    values[i] = static_cast<float>(-std::log(-std::log(u)) * training.noise);
  }
  return noise;
}

at::Tensor weights_of_others(
    const RouterConfig& config, const Routing& routing) {
  at::Tensor weights = routing.probs;
  if (config.renormalize || config.score == RouterScore::kTopkThenSoftmax) {
    const at::Tensor chosen = routing.probs.gather(1, routing.selected);
    weights = weights / mixing_divisor(config, chosen).detach();
  }
  if (config.scale != 1.0) weights = weights * config.scale;
  if (routing.scales.defined()) weights = weights * routing.scales;
  const at::Tensor chosen = at::zeros_like(routing.probs, at::kBool)
                                .scatter_(1, routing.selected, true);
  return weights.masked_fill(chosen, 0.0);
}

}  // namespace fettle::model
