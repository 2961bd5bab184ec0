// SPDX-License-Identifier: Apache-2.0
#include "model/layers/convolution.h"

#include "kernels/causal_conv1d.h"
#include "model/layers/differentiable_mixers.h"

namespace fettle::model {

at::Tensor convolution(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x,
    const ConvolutionKind& kind) {
  const kernels::ConvolutionWeights conv{
      weights.convolution.weight, weights.convolution.bias};
  kernels::ConvolutionOptions options{
      .starts = context.batch.tokens.starts, .silu = kind.silu, .state = {}};
  if (context.state == nullptr) return causal_convolution(x, conv, options);
  at::Tensor& tail = context.state->tail;
  if (!tail.defined()) {
    tail = at::zeros({1, conv.weight.size(1) - 1, x.size(1)}, x.options());
  }
  options.state = tail;
  return kernels::causal_conv1d(x, conv, options);
}

}  // namespace fettle::model
