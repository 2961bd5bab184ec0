// SPDX-License-Identifier: Apache-2.0
#include "model/layers/decoder_layer.h"

#include "model/layers/attention.h"
#include "model/layers/dense_mlp.h"
#include "model/layers/differentiable.h"
#include "model/layers/moe_layer.h"

namespace fettle::model {

at::Tensor decoder_layer(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const double eps = context.config.norm_eps;
  at::Tensor h = rms_norm(x, weights.input_norm, eps);
  h = x + attention(context, weights, h);

  const at::Tensor normed = rms_norm(h, weights.post_attention_norm, eps);
  return h + (context.shape().sparse
                  ? moe_layer(context, weights, normed)
                  : dense_mlp(context, weights, kDenseRoles, normed));
}

at::Tensor embed(const GlobalWeights& weights, const at::Tensor& ids) {
  return weights.embed_tokens.index_select(0, ids);
}

}  // namespace fettle::model
