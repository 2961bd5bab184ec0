// SPDX-License-Identifier: Apache-2.0
#include "model/layers/attention.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "kernels/device_backend.h"
#include "model/layers/attention_sinks.h"
#include "model/layers/differentiable.h"
#include "model/layers/fused_attention.h"
#include "model/layers/latent_attention.h"
#include "model/layers/padded_sequences.h"
#include "model/layers/projection.h"

namespace fettle::model {
namespace {

struct Heads {
  at::Tensor query;  // [N, heads, D]
  at::Tensor key;    // [N, kv_heads, D]
  at::Tensor value;  // [N, kv_heads, Dv]
  // [N, heads Dv] whose sigmoid multiplies the heads' outputs, or undefined.
  at::Tensor gate = {};
  at::Tensor sinks = {};  // [heads], or undefined
};

Heads gqa_heads(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const AttentionConfig& a = context.attention();
  const AttentionWeights& w = weights.attention;
  const Projection project{context, weights};
  const NormKind norm{context.config.norm_eps, context.config.norm_offset};
  at::Tensor q = project(Role::kQProj, x, w.q_proj, w.q_bias);
  at::Tensor gate;
  if (a.gate == OutputGate::kInQuery) {
    const auto parts =
        q.view({x.size(0), a.heads, 2 * a.head_dim}).split(a.head_dim, 2);
    q = parts[0].reshape({x.size(0), -1});
    gate = parts[1].reshape({x.size(0), -1});
  }
  at::Tensor k = project(Role::kKProj, x, w.k_proj, w.k_bias);
  at::Tensor v = a.k_as_v ? k : project(Role::kVProj, x, w.v_proj, w.v_bias);
  if (a.qk_norm == QkNorm::kFull) {
    q = rms_norm(q, w.q_norm, norm);
    k = rms_norm(k, w.k_norm, norm);
  }
  if (a.clip_qkv) {
    q = q.clamp(-*a.clip_qkv, *a.clip_qkv);
    k = k.clamp(-*a.clip_qkv, *a.clip_qkv);
    v = v.clamp(-*a.clip_qkv, *a.clip_qkv);
  }
  q = q.view({x.size(0), a.heads, a.head_dim});
  k = k.view({x.size(0), a.kv_heads, a.head_dim});
  v = v.view({x.size(0), a.kv_heads, a.v_head_dim});
  if (a.qk_norm == QkNorm::kHead) {
    q = rms_norm(q, w.q_norm, norm);
    k = rms_norm(k, w.k_norm, norm);
  }
  if (a.v_norm) {
    const at::Tensor ones = at::ones({a.v_head_dim}, v.options());
    v = rms_norm(v, ones, context.config.norm_eps);
  }
  if (a.rope.dim > 0) {
    const RotaryPlace place{a.rope.pairing};
    q = apply_rotary(q, context.rotary(), place);
    k = apply_rotary(k, context.rotary(), place);
  }
  if (a.gate == OutputGate::kOwnProjection) {
    gate = project(Role::kAttentionGate, x, w.gate);
  }
  return {q, k, v, gate, w.sinks};
}

// How one sequence attends.
struct Attending {
  const AttentionConfig& config;
  std::int64_t window = 0;
  at::Tensor sinks = {};
};

// Additive mask [T, T] that hides the future and what lies `window` or more
// tokens back, but for the sinks' token, the first.
at::Tensor sliding_mask(
    std::int64_t length, const Attending& how, const at::Tensor& like) {
  const at::Tensor index = at::arange(length, like.device());
  const at::Tensor distance = index.unsqueeze(1) - index.unsqueeze(0);
  at::Tensor visible = distance.ge(0).logical_and(distance.lt(how.window));
  if (how.sinks.defined()) visible.select(1, 0).fill_(true);
  return at::zeros({length, length}, like.options())
      .masked_fill_(
          visible.logical_not(), -std::numeric_limits<double>::infinity());
}

// Whether fused attention takes fewer kv heads than heads as they are;
// libtorch's others would do without fusion.
bool takes_groups(const at::Tensor& query, bool masked) {
  return query.scalar_type() != at::kFloat && !masked && query.size(3) <= 192 &&
         kernels::compute_capability(query.device()) >= 80;
}

// Each of the kv heads of [B, kv_heads, S, D] repeated for its group.
at::Tensor repeated(const at::Tensor& x, std::int64_t groups) {
  if (groups == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), groups, x.size(2), x.size(3)})
      .reshape({x.size(0), x.size(1) * groups, x.size(2), x.size(3)});
}

// query [B, heads, T, D], key [B, kv_heads, S, D], value [B, kv_heads, S, Dv].
at::Tensor attend(const Attending& how, const AttentionInputs& inputs) {
  const bool several = inputs.query.size(2) > 1;
  const double scale = how.config.softmax_scale;
  if (how.sinks.defined() && !several) {
    return attend_with_sinks(inputs, how.sinks, scale);
  }
  const auto [query, key, value] =
      how.sinks.defined() ? with_sink_token(inputs, how.sinks, scale) : inputs;
  std::optional<at::Tensor> mask;
  if (several && how.window > 0 && inputs.query.size(2) > how.window) {
    mask = sliding_mask(query.size(2), how, query);
  }
  // Fused attention wants values as wide as keys: zeros more change nothing.
  const std::int64_t pad = key.size(3) - value.size(3);
  const at::Tensor padded =
      pad > 0 ? at::constant_pad_nd(value, {0, pad}) : value;
  const std::int64_t groups = query.size(1) / key.size(1);
  const bool grouped = groups > 1 && takes_groups(query, mask.has_value());
  const at::Tensor out = fused_attention(
      query,
      grouped ? key : repeated(key, groups),
      grouped ? padded : repeated(padded, groups),
      {.mask = mask,
       .causal = several && !mask.has_value(),
       .scale = scale,
       .grouped = grouped});
  const at::Tensor own =
      how.sinks.defined() ? out.narrow(2, 1, out.size(2) - 1) : out;
  return pad > 0 ? own.narrow(3, 0, value.size(3)) : own;
}

// [B T, heads, D] → [B, heads, T, D].
at::Tensor batched(const at::Tensor& x, std::int64_t batch) {
  return x.view({batch, x.size(0) / batch, x.size(1), x.size(2)})
      .transpose(1, 2);
}

at::Tensor attend_packed(
    const LayerContext& context, const Heads& heads, std::int64_t batch) {
  const AttentionConfig& a = context.attention();
  const at::Tensor out = attend(
      {a, context.shape().sliding_window, heads.sinks},
      {batched(heads.query, batch),
       batched(heads.key, batch),
       batched(heads.value, batch)});
  return out.transpose(1, 2).reshape(
      {heads.query.size(0), a.heads * a.v_head_dim});
}

bool equal_lengths(const std::vector<std::int64_t>& starts) {
  for (std::size_t i = 2; i < starts.size(); ++i) {
    if (starts[i] - starts[i - 1] != starts[1]) return false;
  }
  return true;
}

Heads slice(const Heads& heads, std::int64_t begin, std::int64_t rows) {
  const auto part = [&](const at::Tensor& x) {
    return x.narrow(0, begin, rows);
  };
  Heads some{part(heads.query), part(heads.key), part(heads.value)};
  some.sinks = heads.sinks;
  return some;
}

// Sequences of unequal lengths, many at once: one by one they would be launches
// and little else.
at::Tensor attend_padded(const LayerContext& context, const Heads& heads) {
  const PaddedSequences padded(
      context.batch.tokens.starts, heads.query.device());
  Heads rows{
      padded.pad(heads.query), padded.pad(heads.key), padded.pad(heads.value)};
  rows.sinks = heads.sinks;
  std::vector<at::Tensor> outs;
  for (const auto& [row, sequences, length] : padded.rectangles()) {
    outs.push_back(attend_packed(
        context, slice(rows, row, sequences * length), sequences));
  }
  return padded.unpad(outs.size() == 1 ? outs[0] : at::cat(outs, 0));
}

// [N, heads Dv]. ATen's fused attention serves devices; on the CPU it computes
// what causality hides and is slow at narrow heads.
at::Tensor attend_sequences(const LayerContext& context, const Heads& heads) {
  const auto& starts = context.batch.tokens.starts;
  if (heads.query.is_cpu() && heads.query.scalar_type() == at::kFloat) {
    const at::Tensor out = causal_attention(
        heads.query,
        heads.key,
        heads.value.contiguous(),
        {starts,
         context.shape().sliding_window,
         context.attention().softmax_scale},
        heads.sinks);
    return out.reshape({out.size(0), out.size(1) * out.size(2)});
  }
  if (equal_lengths(starts)) {
    return attend_packed(context, heads, context.batch.tokens.sequences());
  }
  return attend_padded(context, heads);
}

// Decoding: one sequence, all of it at first, then a token at a time.
at::Tensor attend_cached(const LayerContext& context, const Heads& heads) {
  const std::int64_t window = context.shape().sliding_window;
  KvCache& cache = context.state->cache;
  const std::int64_t past = cache.length;
  cache.append(heads.key, heads.value);
  if (past == 0) return attend_sequences(context, heads);
  FETTLE_ASSERT(heads.query.size(0) == 1);
  const std::int64_t seen =
      window > 0 ? std::min(window, cache.length) : cache.length;
  const std::int64_t begin = cache.length - seen;
  const AttentionConfig& a = context.attention();
  const at::Tensor out = attend(
      {a, 0, heads.sinks},
      {batched(heads.query, 1),
       batched(cache.key.narrow(0, begin, seen), 1),
       batched(cache.value.narrow(0, begin, seen), 1)});
  return out.transpose(1, 2).reshape({1, a.heads * a.v_head_dim});
}

// The cache holds latents. A token that is decoded meets them as they are; what
// a sequence begins with is expanded to heads.
at::Tensor attend_by_latents(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const Latents latents = latents_of(context, weights, x);
  const bool goes_on =
      context.state != nullptr && context.state->cache.length > 0;
  if (context.state != nullptr) keep_latents(context, latents);
  if (goes_on) return attend_to_latents(context, weights, latents);
  const LatentHeads heads = expanded(context, weights, latents);
  return attend_sequences(context, {latents.query, heads.key, heads.value});
}

at::Tensor attend_by_heads(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const Heads heads = gqa_heads(context, weights, x);
  const at::Tensor mixed = context.state != nullptr
                               ? attend_cached(context, heads)
                               : attend_sequences(context, heads);
  return heads.gate.defined() ? mixed * heads.gate.sigmoid() : mixed;
}

}  // namespace

at::Tensor attention(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const at::Tensor mixed = context.attention().kind == AttentionKind::kMla
                               ? attend_by_latents(context, weights, x)
                               : attend_by_heads(context, weights, x);
  const AttentionWeights& w = weights.attention;
  return Projection{context, weights}(Role::kOProj, mixed, w.o_proj, w.o_bias);
}

}  // namespace fettle::model
