// SPDX-License-Identifier: Apache-2.0
#include "model/layers/latent_attention.h"

#include "core/error.h"
#include "model/layers/differentiable.h"
#include "model/layers/projection.h"
#include "model/weights/packed_layer.h"

namespace fettle::model {
namespace {

// kv_b_proj by heads: [heads, Dn + Dv, L].
at::Tensor rows_by_head(
    const AttentionConfig& a,
    const LayerWeights& weights,
    at::ScalarType type) {
  const at::Tensor& dense = weights.attention.kv_b_proj;
  const at::Tensor rows =
      dense.defined() ? dense
                      : weights.packed->at(Role::kKvBProj).unpacked(type);
  return rows.view(
      {a.heads, a.qk_nope_head_dim + a.v_head_dim, a.kv_lora_rank});
}

}  // namespace

Latents latents_of(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const AttentionConfig& a = context.attention();
  const AttentionWeights& w = weights.attention;
  const Projection project{context, weights};
  const double eps = context.config.latent_norm_eps;
  at::Tensor q;
  if (a.q_lora_rank == 0) {
    q = project(Role::kQProj, x, w.q_proj);
  } else {
    const at::Tensor narrow = project(Role::kQAProj, x, w.q_a_proj, w.q_a_bias);
    q = project(Role::kQBProj, rms_norm(narrow, w.q_a_norm, eps), w.q_b_proj);
  }
  const at::Tensor compressed =
      project(Role::kKvAProj, x, w.kv_a_proj, w.kv_a_bias);
  return {
      apply_rotary(
          q.view({x.size(0), a.heads, a.head_dim}),
          context.rotary(),
          {a.rope.pairing, a.qk_nope_head_dim}),
      rms_norm(
          compressed.narrow(1, 0, a.kv_lora_rank).contiguous(),
          w.kv_a_norm,
          eps),
      apply_rotary(
          compressed.narrow(1, a.kv_lora_rank, a.rope.dim)
              .contiguous()
              .unsqueeze(1),
          context.rotary(),
          {a.rope.pairing})};
}

LatentHeads expanded(
    const LayerContext& context,
    const LayerWeights& weights,
    const Latents& latents) {
  const AttentionConfig& a = context.attention();
  const std::int64_t tokens = latents.latent.size(0);
  const at::Tensor both =
      Projection{context, weights}(
          Role::kKvBProj, latents.latent, weights.attention.kv_b_proj)
          .view({tokens, a.heads, a.qk_nope_head_dim + a.v_head_dim});
  return {
      at::cat(
          {both.narrow(2, 0, a.qk_nope_head_dim),
           latents.key_rope.expand({tokens, a.heads, a.rope.dim})},
          2),
      both.narrow(2, a.qk_nope_head_dim, a.v_head_dim)};
}

void keep_latents(KvCache& cache, const Latents& latents) {
  const at::Tensor latent = latents.latent.unsqueeze(1);
  cache.append(at::cat({latent, latents.key_rope}, 2), latent.narrow(2, 0, 0));
}

Latents cached_latents(const LayerContext& context, const KvCache& cache) {
  const AttentionConfig& a = context.attention();
  const at::Tensor all = cache.key.narrow(0, 0, cache.length);
  return {
      {},
      all.narrow(2, 0, a.kv_lora_rank).squeeze(1).contiguous(),
      all.narrow(2, a.kv_lora_rank, a.rope.dim)};
}

at::Tensor attend_to_latents(
    const LayerContext& context,
    const LayerWeights& weights,
    const KvCache& cache,
    const at::Tensor& one) {
  FETTLE_ASSERT(one.size(0) == 1);
  const AttentionConfig& a = context.attention();
  const at::ScalarType type = one.scalar_type();
  const at::Tensor seen = cache.key.narrow(0, 0, cache.length).squeeze(1);
  const at::Tensor rows = rows_by_head(a, weights, type);
  const at::Tensor query = one.squeeze(0).unsqueeze(1);
  // (W q)ᵀ c = qᵀ (Wᵀ c): the query meets the latents, not the keys.
  const at::Tensor turned = at::bmm(
      query.narrow(2, 0, a.qk_nope_head_dim),
      rows.narrow(1, 0, a.qk_nope_head_dim));
  const at::Tensor by_latent =
      at::cat({turned, query.narrow(2, a.qk_nope_head_dim, a.rope.dim)}, 2);
  const at::Tensor shares = at::mm(by_latent.squeeze(1), seen.t())
                                .mul(a.softmax_scale)
                                .softmax(1, at::kFloat)
                                .to(type);  // [heads, S]
  const at::Tensor mixed = at::mm(shares, seen.narrow(1, 0, a.kv_lora_rank));
  return at::bmm(
             mixed.unsqueeze(1),
             rows.narrow(1, a.qk_nope_head_dim, a.v_head_dim).transpose(1, 2))
      .reshape({1, a.heads * a.v_head_dim});
}

}  // namespace fettle::model
