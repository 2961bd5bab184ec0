// SPDX-License-Identifier: Apache-2.0
#include "model/layers/gated_delta.h"

#include "kernels/gated_delta.h"
#include "model/layers/convolution.h"
#include "model/layers/decoded_product.h"
#include "model/layers/differentiable.h"
#include "model/layers/differentiable_mixers.h"
#include "model/layers/each_sequence.h"
#include "model/layers/projection.h"

namespace fettle::model {
namespace {

// What is projected from the layer's input.
struct Projected {
  at::Tensor qkv;    // [N, channels]
  at::Tensor gate;   // [N, value heads, Dv]
  at::Tensor beta;   // [N, value heads], before its sigmoid
  at::Tensor decay;  // [N, value heads], before its softplus
};

Projected project_plain(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const GatedDeltaConfig& d = context.config.gated_delta;
  const GatedDeltaWeights& w = weights.gated_delta;
  const Projection project{context, weights};
  return {
      project(Role::kDeltaQkv, x, w.qkv),
      project(Role::kDeltaGate, x, w.gate)
          .view({x.size(0), d.value_heads, d.value_dim}),
      product(x, w.beta.t(), {context.decodes()}),
      product(x, w.decay.t(), {context.decodes()})};
}

// Each key head's query and key lie before the values and the gates of its
// value heads.
Projected project_grouped(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const GatedDeltaConfig& d = context.config.gated_delta;
  const GatedDeltaWeights& w = weights.gated_delta;
  const std::int64_t tokens = x.size(0);
  const std::int64_t heads = d.value_heads / d.key_heads;  // of a key head
  const std::int64_t values = heads * d.value_dim;
  const auto qkvz =
      Projection{context, weights}(Role::kDeltaQkvGate, x, w.qkv_gate)
          .view({tokens, d.key_heads, -1})
          .split_with_sizes({d.key_dim, d.key_dim, values, values}, 2);
  const auto flat = [&](const at::Tensor& part) {
    return part.reshape({tokens, -1});
  };
  const auto ba = product(x, w.beta_decay.t(), {context.decodes()})
                      .view({tokens, d.key_heads, 2 * heads})
                      .split(heads, 2);
  return {
      at::cat({flat(qkvz[0]), flat(qkvz[1]), flat(qkvz[2])}, 1),
      qkvz[3].reshape({tokens, d.value_heads, d.value_dim}),
      flat(ba[0]),
      flat(ba[1])};
}

// The rule over [N, channels] of convolved queries, keys and values → [N, value
// heads, Dv].
at::Tensor delta_rule(
    const LayerContext& context,
    const LayerWeights& weights,
    const Projected& projected) {
  const GatedDeltaConfig& d = context.config.gated_delta;
  const GatedDeltaWeights& w = weights.gated_delta;
  const at::Tensor convolved =
      convolution(context, weights, projected.qkv, {.silu = true});
  const auto parts = convolved.split_with_sizes(
      {d.key_size(), d.key_size(), d.value_size()}, 1);
  const auto heads = [](const at::Tensor& part, std::int64_t dim) {
    return part.view({part.size(0), -1, dim});
  };
  const at::Tensor step =
      at::softplus(projected.decay.to(at::kFloat) + w.decay_bias);
  const kernels::GatedDeltaInputs inputs{
      heads(parts[0], d.key_dim),
      heads(parts[1], d.key_dim),
      heads(parts[2], d.value_dim),
      step * w.log_rate.exp().neg(),
      projected.beta.to(at::kFloat).sigmoid()};
  if (context.states.empty()) {
    return gated_delta_rule(
        inputs, {.starts = context.batch.tokens.starts, .state = {}});
  }
  return for_each_state(
      context, [&](LayerState& state, const SequenceRows& rows) {
        if (!state.recurrent.defined()) {
          state.recurrent = at::zeros(
              {1, d.value_heads, d.key_dim, d.value_dim},
              convolved.options().dtype(at::kFloat));
        }
        return kernels::gated_delta(
            {rows.of(inputs.q),
             rows.of(inputs.k),
             rows.of(inputs.v),
             rows.of(inputs.g),
             rows.of(inputs.beta)},
            {.starts = {0, rows.count}, .state = state.recurrent});
      });
}

}  // namespace

at::Tensor gated_delta(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const GatedDeltaWeights& w = weights.gated_delta;
  const Projected projected = context.config.gated_delta.grouped
                                  ? project_grouped(context, weights, x)
                                  : project_plain(context, weights, x);
  const at::Tensor normed = rms_norm(
      delta_rule(context, weights, projected), w.norm, context.config.norm_eps);
  const at::Tensor mixed =
      (normed * at::silu(projected.gate.to(at::kFloat))).to(x.scalar_type());
  return Projection{context, weights}(
      Role::kDeltaOut, mixed.view({x.size(0), -1}), w.out);
}

}  // namespace fettle::model
