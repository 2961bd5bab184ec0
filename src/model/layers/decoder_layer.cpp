// SPDX-License-Identifier: Apache-2.0
#include "model/layers/decoder_layer.h"

#include <cmath>

#include "model/layers/dense_mlp.h"
#include "model/layers/differentiable.h"
#include "model/layers/moe_layer.h"
#include "model/layers/token_mixer.h"

namespace fettle::model {
namespace {

// The model's norm, with a weight [H].
at::Tensor normed(
    const LayerContext& context,
    const at::Tensor& x,
    const at::Tensor& weight) {
  return rms_norm(
      x, weight, {context.config.norm_eps, context.config.norm_offset});
}

// x / rms(x) * weight / sqrt(H), in fp32 as all of the router.
at::Tensor router_input(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const double root = std::sqrt(static_cast<double>(x.size(1)));
  return normed(context, x.to(at::kFloat), weights.router_norm / root);
}

// A dense MLP and experts side by side, each with norms of its own.
at::Tensor side_by_side(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const at::Tensor dense = dense_mlp(
      context,
      weights,
      kDenseRoles,
      normed(context, x, weights.post_attention_norm));
  const at::Tensor seen = normed(context, x, weights.experts_norm);
  const at::Tensor experts = moe_layer(
      context,
      weights,
      {seen,
       context.config.router.own_norm ? router_input(context, weights, x)
                                      : seen});
  return normed(context, dense, weights.dense_out_norm) +
         normed(context, experts, weights.experts_out_norm);
}

// What a layer's MLPs make of the residual stream x [N, H].
at::Tensor feed_forward(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  if (context.shape().has_dense_beside_experts()) {
    return side_by_side(context, weights, x);
  }
  const at::Tensor seen = normed(context, x, weights.post_attention_norm);
  return context.shape().sparse
             ? moe_layer(context, weights, {seen, seen})
             : dense_mlp(context, weights, kDenseRoles, seen);
}

// The residual stream x with what a branch gave, under the branch's own norm
// where the model has one.
at::Tensor with_branch(
    const LayerContext& context,
    const at::Tensor& x,
    at::Tensor branch,
    const at::Tensor& out_norm) {
  const BlockConfig& block = context.config.block;
  if (block.out_norms) branch = normed(context, branch, out_norm);
  return block.residual_multiplier == 1.0
             ? x + branch
             : at::add(x, branch, block.residual_multiplier);
}

}  // namespace

at::Tensor decoder_layer(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  at::Tensor h = x;
  if (context.shape().has_mixer()) {
    const at::Tensor seen = normed(context, x, weights.input_norm);
    h = with_branch(
        context,
        x,
        token_mixer(context, weights, seen),
        weights.attention_out_norm);
  }
  if (context.shape().has_mlp()) {
    h = with_branch(
        context, h, feed_forward(context, weights, h), weights.mlp_out_norm);
  }
  return context.config.block.layer_scalar ? h * weights.layer_scalar : h;
}

}  // namespace fettle::model
