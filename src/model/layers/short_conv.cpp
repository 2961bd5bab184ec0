// SPDX-License-Identifier: Apache-2.0
#include "model/layers/short_conv.h"

#include "model/layers/convolution.h"
#include "model/layers/projection.h"

namespace fettle::model {

at::Tensor short_conv(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const ShortConvWeights& w = weights.short_conv;
  const Projection project{context, weights};
  const auto parts = project(Role::kShortConvIn, x, w.in, w.in_bias)
                         .split(context.config.hidden_size, 1);
  const at::Tensor mixed =
      parts[1] *
      convolution(context, weights, parts[0] * parts[2], {.silu = false});
  return project(Role::kShortConvOut, mixed, w.out, w.out_bias);
}

}  // namespace fettle::model
