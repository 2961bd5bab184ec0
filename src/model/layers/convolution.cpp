// SPDX-License-Identifier: Apache-2.0
#include "model/layers/convolution.h"

#include "kernels/causal_conv1d.h"
#include "model/layers/differentiable_mixers.h"
#include "model/layers/each_sequence.h"

namespace fettle::model {

at::Tensor convolution(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x,
    const ConvolutionKind& kind) {
  const kernels::ConvolutionWeights conv{
      weights.convolution.weight, weights.convolution.bias};
  if (context.states.empty()) {
    return causal_convolution(
        x,
        conv,
        {.starts = context.batch.tokens.starts,
         .silu = kind.silu,
         .state = {}});
  }
  return for_each_state(
      context, [&](LayerState& state, const SequenceRows& rows) {
        if (!state.tail.defined()) {
          state.tail =
              at::zeros({1, conv.weight.size(1) - 1, x.size(1)}, x.options());
        }
        return kernels::causal_conv1d(
            rows.of(x),
            conv,
            {.starts = {0, rows.count},
             .silu = kind.silu,
             .state = state.tail});
      });
}

}  // namespace fettle::model
