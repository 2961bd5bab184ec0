// SPDX-License-Identifier: Apache-2.0
#include "model/layers/attention.h"

#include <algorithm>
#include <limits>

#include "kernels/cached_attention.h"
#include "kernels/decoded_attention.h"
#include "kernels/device_backend.h"
#include "model/layers/attention_sinks.h"
#include "model/layers/differentiable.h"
#include "model/layers/each_sequence.h"
#include "model/layers/fused_attention.h"
#include "model/layers/latent_attention.h"
#include "model/layers/padded_sequences.h"
#include "model/layers/projection.h"

namespace fettle::model {
namespace {

struct Heads {
  at::Tensor query;  // [N, heads, D], or as projected [N, heads D]
  at::Tensor key;    // [N, kv_heads, D], or [N, kv_heads D]
  at::Tensor value;  // [N, kv_heads, Dv], or [N, kv_heads Dv]
  // [N, heads Dv] whose sigmoid multiplies the heads' outputs, or undefined.
  at::Tensor gate = {};
  at::Tensor sinks = {};  // [heads], or undefined
};

// Queries, keys and values as projected, and the gate.
Heads projected(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const AttentionConfig& a = context.attention();
  const AttentionWeights& w = weights.attention;
  const Projection project{context, weights};
  std::vector<at::Tensor> products =
      a.k_as_v ? project.together(
                     x,
                     {{Role::kQProj, w.q_proj, w.q_bias},
                      {Role::kKProj, w.k_proj, w.k_bias}})
               : project.together(
                     x,
                     {{Role::kQProj, w.q_proj, w.q_bias},
                      {Role::kKProj, w.k_proj, w.k_bias},
                      {Role::kVProj, w.v_proj, w.v_bias}});
  Heads heads{products[0], products[1], products.back(), {}, w.sinks};
  if (a.gate == OutputGate::kInQuery) {
    const auto parts = heads.query.view({x.size(0), a.heads, 2 * a.head_dim})
                           .split(a.head_dim, 2);
    heads.query = parts[0].reshape({x.size(0), -1});
    heads.gate = parts[1].reshape({x.size(0), -1});
  } else if (a.gate == OutputGate::kOwnProjection) {
    heads.gate = project(Role::kAttentionGate, x, w.gate);
  }
  return heads;
}

// The heads, normed and rotated.
Heads turned(
    const LayerContext& context, const LayerWeights& weights, Heads heads) {
  const AttentionConfig& a = context.attention();
  const AttentionWeights& w = weights.attention;
  const NormKind norm{context.config.norm_eps, context.config.norm_offset};
  auto& [q, k, v, gate, sinks] = heads;
  const std::int64_t tokens = q.size(0);
  if (a.qk_norm == QkNorm::kFull) {
    q = rms_norm(q, w.q_norm, norm);
    k = rms_norm(k, w.k_norm, norm);
  }
  if (a.clip_qkv) {
    q = q.clamp(-*a.clip_qkv, *a.clip_qkv);
    k = k.clamp(-*a.clip_qkv, *a.clip_qkv);
    v = v.clamp(-*a.clip_qkv, *a.clip_qkv);
  }
  q = q.view({tokens, a.heads, a.head_dim});
  k = k.view({tokens, a.kv_heads, a.head_dim});
  v = v.view({tokens, a.kv_heads, a.v_head_dim});
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
  return heads;
}

// How one sequence attends.
struct Attending {
  const AttentionConfig& config;
  std::int64_t window = 0;
  at::Tensor sinks = {};
};

// Additive mask [T, S], the queries being the last tokens, that hides the
// future and what lies `window` or more tokens back, but for the sinks' token,
// the first.
at::Tensor sliding_mask(
    const Attending& how, const at::Tensor& query, const at::Tensor& key) {
  const std::int64_t length = key.size(2);
  const at::Tensor index = at::arange(length, query.device());
  const at::Tensor last =
      index.narrow(0, length - query.size(2), query.size(2));
  const at::Tensor distance = last.unsqueeze(1) - index.unsqueeze(0);
  at::Tensor visible = distance.ge(0);
  if (how.window > 0) visible.logical_and_(distance.lt(how.window));
  if (how.sinks.defined()) visible.select(1, 0).fill_(true);
  return at::zeros({query.size(2), length}, query.options())
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
  const std::int64_t tokens = inputs.key.size(2);
  const bool goes_on = inputs.query.size(2) < tokens;
  if (several && (goes_on || (how.window > 0 && tokens > how.window))) {
    mask = sliding_mask(how, query, key);
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

// Whether the sequences of the batch begin here.
bool all_begin(const LayerContext& context) {
  return std::ranges::all_of(context.states, [](const LayerState* state) {
    return state->cache.length == 0;
  });
}

// [n, heads Dv] of a sequence's last n tokens, which see all `keys` [S, ..].
at::Tensor attend_behind(
    const LayerContext& context,
    const Heads& heads,
    const at::Tensor& keys,
    const at::Tensor& values) {
  const AttentionConfig& a = context.attention();
  const std::int64_t window = context.shape().sliding_window;
  const std::int64_t queries = heads.query.size(0);
  // What the first of them sees is all that any does.
  const std::int64_t seen =
      window > 0 ? std::min(window + queries - 1, keys.size(0)) : keys.size(0);
  const std::int64_t begin = keys.size(0) - seen;
  const at::Tensor out = attend(
      {a, queries > 1 ? window : 0, heads.sinks},
      {batched(heads.query, 1),
       batched(keys.narrow(0, begin, seen), 1),
       batched(values.narrow(0, begin, seen), 1)});
  return out.transpose(1, 2).reshape({queries, a.heads * a.v_head_dim});
}

// The same on the CPU, of all sequences at once.
at::Tensor attend_on_cpu(const LayerContext& context, const Heads& heads) {
  std::vector<kernels::CachedTokens> caches;
  for (const LayerState* state : context.states) {
    const KvCache& cache = state->cache;
    caches.push_back({cache.key, cache.value, cache.length});
  }
  const at::Tensor out = kernels::cached_attention(
      heads.query.contiguous(),
      caches,
      {.starts = context.batch.tokens.starts,
       .window = context.shape().sliding_window,
       .scale = context.attention().softmax_scale,
       .sinks = heads.sinks});
  return out.view({out.size(0), -1});
}

// Decoding: sequences that begin, or go on behind what their caches hold.
at::Tensor attend_cached(const LayerContext& context, const Heads& heads) {
  const bool begin = all_begin(context);
  for (std::size_t s = 0; s < context.states.size(); ++s) {
    const SequenceRows rows = rows_of_sequence(context, s);
    context.states[s]->cache.append(rows.of(heads.key), rows.of(heads.value));
  }
  if (begin) return attend_sequences(context, heads);
  if (heads.query.is_cpu() && heads.query.scalar_type() == at::kFloat) {
    return attend_on_cpu(context, heads);
  }
  return for_each_state(
      context, [&](const LayerState& state, const SequenceRows& rows) {
        const KvCache& cache = state.cache;
        return attend_behind(
            context,
            slice(heads, rows.first, rows.count),
            cache.key.narrow(0, 0, cache.length),
            cache.value.narrow(0, 0, cache.length));
      });
}

// A sequence's tokens behind those whose latents its cache holds, their own
// among them: a token that is decoded meets latents as they are, of several
// tokens all are expanded to heads.
at::Tensor attend_to_cached_latents(
    const LayerContext& context,
    const LayerWeights& weights,
    const KvCache& cache,
    const at::Tensor& query) {
  if (query.size(0) == 1) {
    return attend_to_latents(context, weights, cache, query);
  }
  const LatentHeads heads =
      expanded(context, weights, cached_latents(context, cache));
  return attend_behind(
      context, {query, heads.key, heads.value}, heads.key, heads.value);
}

at::Tensor attend_by_latents(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const Latents latents = latents_of(context, weights, x);
  const bool begin = all_begin(context);
  for (std::size_t s = 0; s < context.states.size(); ++s) {
    const SequenceRows rows = rows_of_sequence(context, s);
    keep_latents(
        context.states[s]->cache,
        {{}, rows.of(latents.latent), rows.of(latents.key_rope)});
  }
  if (!begin) {
    return for_each_state(
        context, [&](const LayerState& state, const SequenceRows& rows) {
          return attend_to_cached_latents(
              context, weights, state.cache, rows.of(latents.query));
        });
  }
  const LatentHeads heads = expanded(context, weights, latents);
  return attend_sequences(context, {latents.query, heads.key, heads.value});
}

// Whether a token of each sequence goes all the way in one op.
bool goes_at_once(const LayerContext& context, const Heads& heads) {
  const AttentionConfig& a = context.attention();
  return context.decodes() && heads.query.is_cpu() &&
         heads.query.scalar_type() == at::kFloat && !a.clip_qkv && !a.v_norm &&
         a.qk_norm != QkNorm::kFull &&
         std::ranges::all_of(context.states, [](const LayerState* state) {
           const KvCache& cache = state->cache;
           return cache.key.defined() && cache.length < cache.key.size(0);
         });
}

at::Tensor attend_at_once(
    const LayerContext& context,
    const LayerWeights& weights,
    const Heads& heads) {
  const AttentionConfig& a = context.attention();
  const AttentionWeights& w = weights.attention;
  std::vector<kernels::GrowingCache> caches;
  for (LayerState* state : context.states) {
    KvCache& cache = state->cache;
    caches.push_back({cache.key, cache.value, cache.length++});
  }
  const bool norms = a.qk_norm == QkNorm::kHead;
  const bool rotates = a.rope.dim > 0;
  return kernels::decoded_attention(
      heads.query,
      heads.key,
      heads.value,
      caches,
      {.window = context.shape().sliding_window,
       .scale = a.softmax_scale,
       .sinks = heads.sinks,
       .q_norm = norms ? w.q_norm : at::Tensor(),
       .k_norm = norms ? w.k_norm : at::Tensor(),
       .eps = context.config.norm_eps,
       .offset = context.config.norm_offset,
       .cos = rotates ? context.rotary().cos : at::Tensor(),
       .sin = rotates ? context.rotary().sin : at::Tensor(),
       .pairing = a.rope.pairing});
}

at::Tensor attend_by_heads(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  Heads heads = projected(context, weights, x);
  at::Tensor mixed;
  if (goes_at_once(context, heads)) {
    mixed = attend_at_once(context, weights, heads);
  } else {
    heads = turned(context, weights, std::move(heads));
    mixed = context.states.empty() ? attend_sequences(context, heads)
                                   : attend_cached(context, heads);
  }
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
