// SPDX-License-Identifier: Apache-2.0
// How routers behave while they are trained, where that differs from use.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/family/model_config.h"
#include "model/layers/router.h"

namespace fettle::model {

struct RouterTraining {
  // The gradient is that of the mixture of all experts (DenseMixer); the
  // forward pass is as ever.
  bool dense_gradient = false;
  // Gumbel noise of this size on the logits, in choice and mixing weights. As
  // it falls to 0 the router becomes the one in use. (The other way, logits and
  // noise divided by a falling temperature, would train for mixing weights
  // that use does not have.)
  double noise = 0.0;
  std::uint64_t seed = 0;
  std::uint64_t step = 0;  // noise differs between steps
};

// Noise [count, experts] of tokens `first` and on of a step, in `layer`: the
// same however tokens are batched. Fp32 on the CPU.
at::Tensor gumbel_noise(
    const RouterTraining& training,
    std::int64_t layer,
    std::int64_t first,
    std::int64_t count,
    std::int64_t experts);

// Mixing weights [N, E] that experts which were not chosen would have had, 0
// for the chosen; differentiable in the routing's probabilities, the sum over
// the chosen held fixed where the family divides by it.
at::Tensor weights_of_others(
    const RouterConfig& config, const Routing& routing);

}  // namespace fettle::model
