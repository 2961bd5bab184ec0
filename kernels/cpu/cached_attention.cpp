// SPDX-License-Identifier: Apache-2.0
// A task is one query token and the query heads of one key head: its scores
// are all kept, so that the softmax needs no second look at the keys.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/decoding.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cached_attention.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Query heads that share the loads of keys and values.
inline constexpr int kHeads = 4;

// Some query heads of a token and the tokens that they see.
struct Seen {
  const CachedAttentionArgs& a;
  const float* q;      // of the first of the heads
  const float* key;    // of the first token seen
  const float* value;  // likewise
  std::size_t count;   // tokens seen
  float* scores;       // [heads, count]
  float* out;          // of the first of the heads

  std::size_t key_stride() const { return a.kv_heads * a.key_size; }
  std::size_t value_stride() const { return a.kv_heads * a.value_size; }
};

// Products of H queries with T keys from token `t` on, lanes not yet added.
template <int H, int T>
HWY_INLINE void dot_keys(const Seen& s, std::size_t t, V (&sums)[H][T]) {
  for (int h = 0; h < H; ++h) {
    for (int i = 0; i < T; ++i) sums[h][i] = hn::Zero(D());
  }
  const float* key = s.key + t * s.key_stride();
  for_row(s.a.key_size, [&](std::size_t i, auto part) HWY_ATTR {
    V keys[T];
    for (int j = 0; j < T; ++j)
      keys[j] = load(key + j * s.key_stride() + i, part);
    for (int h = 0; h < H; ++h) {
      const V q = load(s.q + h * s.a.key_size + i, part);
      for (int j = 0; j < T; ++j) {
        sums[h][j] = hn::MulAdd(keys[j], q, sums[h][j]);
      }
    }
  });
}

#if HWY_TARGET != HWY_SCALAR

inline constexpr int kKeys = 4;
using Four = hn::FixedTag<float, 4>;

template <class Tag, class Vec>
HWY_INLINE hn::Vec<Four> sum_of_blocks(Tag d, Vec v) {
  if constexpr (hn::MaxLanes(Tag()) > 4) {
    const hn::Half<Tag> half;
    return sum_of_blocks(
        half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    return v;
  }
}

// The lanes' sums of four vectors.
HWY_INLINE hn::Vec<Four> sums_of_lanes(const V (&v)[kKeys]) {
  const D d;
  const hn::Repartition<double, D> wide;
  const auto pairs = [&](V a, V b) HWY_ATTR {
    return hn::BitCast(
        wide,
        hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  };
  const auto ab = pairs(v[0], v[1]), cd = pairs(v[2], v[3]);
  return sum_of_blocks(
      d,
      hn::Add(
          hn::BitCast(d, hn::InterleaveLower(wide, ab, cd)),
          hn::BitCast(d, hn::InterleaveUpper(wide, ab, cd))));
}

#endif

template <int H>
HWY_INLINE void score(const Seen& s) {
  std::size_t t = 0;
#if HWY_TARGET != HWY_SCALAR
  const auto scale = hn::Set(Four(), s.a.scale);
  for (; t + kKeys <= s.count; t += kKeys) {
    V sums[H][kKeys];
    dot_keys<H, kKeys>(s, t, sums);
    for (int h = 0; h < H; ++h) {
      hn::StoreU(
          hn::Mul(scale, sums_of_lanes(sums[h])),
          Four(),
          s.scores + h * s.count + t);
    }
  }
#endif
  for (; t < s.count; ++t) {
    V sums[H][1];
    dot_keys<H, 1>(s, t, sums);
    for (int h = 0; h < H; ++h) {
      s.scores[h * s.count + t] =
          s.a.scale * hn::GetLane(hn::SumOfLanes(D(), sums[h][0]));
    }
  }
}

// Scores become shares.
HWY_INLINE void normalise(float* scores, std::size_t count, const float* sink) {
  float top = sink == nullptr ? -std::numeric_limits<float>::infinity() : *sink;
  for (std::size_t t = 0; t < count; ++t) {
    // A NaN stays.
    top = scores[t] <= top ? top : scores[t];
  }
  const V shift = hn::Set(D(), top);
  float sum = sum_row(count, [&](V all, std::size_t i, auto part) HWY_ATTR {
    const V e = exp_negative(hn::Sub(load(scores + i, part), shift));
    store(e, scores + i, part);
    if constexpr (std::is_same_v<decltype(part), Part>) {
      return hn::Add(all, hn::IfThenElseZero(hn::FirstN(D(), part.count), e));
    } else {
      return hn::Add(all, e);
    }
  });
  if (sink != nullptr) sum += std::exp(*sink - top);
  const V divisor = hn::Set(D(), sum);
  for_row(count, [&](std::size_t i, auto part) HWY_ATTR {
    store(hn::Div(load(scores + i, part), divisor), scores + i, part);
  });
}

// C vectors of values from column `i` on, for H heads: every token's are read
// once, and so many sums need not wait for each other.
template <int H, int C, class Size>
HWY_INLINE void mix_columns(const Seen& s, std::size_t i, Size size) {
  const std::size_t lanes = hn::Lanes(D());
  V sums[C][H];
  for (int c = 0; c < C; ++c) {
    for (int h = 0; h < H; ++h) sums[c][h] = hn::Zero(D());
  }
  const float* value = s.value + i;
  for (std::size_t t = 0; t < s.count; ++t, value += s.value_stride()) {
    V v[C];
    for (int c = 0; c < C; ++c) v[c] = load(value + c * lanes, size);
    for (int h = 0; h < H; ++h) {
      const V share = hn::Set(D(), s.scores[h * s.count + t]);
      for (int c = 0; c < C; ++c) {
        sums[c][h] = hn::MulAdd(share, v[c], sums[c][h]);
      }
    }
  }
  for (int c = 0; c < C; ++c) {
    for (int h = 0; h < H; ++h) {
      store(sums[c][h], s.out + h * s.a.value_size + i + c * lanes, size);
    }
  }
}

template <int H>
HWY_INLINE void mix(const Seen& s) {
  const std::size_t lanes = hn::Lanes(D()), n = s.a.value_size;
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) mix_columns<H, 4>(s, i, Whole{});
  for (; i + 2 * lanes <= n; i += 2 * lanes) mix_columns<H, 2>(s, i, Whole{});
  for (; i + lanes <= n; i += lanes) mix_columns<H, 1>(s, i, Whole{});
  if (i < n) mix_columns<H, 1>(s, i, Part{n - i});
}

template <int H>
void attend(const Seen& s, const float* sinks) {
  score<H>(s);
  for (int h = 0; h < H; ++h) {
    normalise(
        s.scores + h * s.count,
        s.count,
        sinks == nullptr ? nullptr : sinks + h);
  }
  mix<H>(s);
}

void Attend(
    const CachedAttentionArgs& a,
    const CachedSequenceArgs& sequence,
    std::int64_t query,
    std::int64_t kv_head,
    float* scores) {
  const std::int64_t end = sequence.tokens - sequence.queries + query + 1;
  const std::int64_t begin =
      a.window > 0 && end > a.window ? end - a.window : 0;
  const std::int64_t group = a.heads / a.kv_heads;
  const std::int64_t token = sequence.begin + query;
  std::int64_t head = kv_head * group;
  const std::int64_t last = head + group;
  const auto next = [&] {
    return Seen{
        a,
        a.q + (token * a.heads + head) * a.key_size,
        sequence.key + (begin * a.kv_heads + kv_head) * a.key_size,
        sequence.value + (begin * a.kv_heads + kv_head) * a.value_size,
        static_cast<std::size_t>(end - begin),
        scores,
        a.out + (token * a.heads + head) * a.value_size};
  };
  const auto sinks = [&] {
    return a.sinks == nullptr ? nullptr : a.sinks + head;
  };
  for (; head + kHeads <= last; head += kHeads) attend<kHeads>(next(), sinks());
  for (; head + 2 <= last; head += 2) attend<2>(next(), sinks());
  for (; head < last; ++head) attend<1>(next(), sinks());
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {
namespace {

HWY_EXPORT(Attend);

// The token and key head of a task.
struct AttentionTask {
  const CachedSequenceArgs* sequence;
  std::int64_t query;
  std::int64_t kv_head;
};

AttentionTask task_of(const CachedAttentionArgs& args, std::int64_t task) {
  const CachedSequenceArgs* sequence = args.sequences;
  while (task >= sequence->queries * args.kv_heads) {
    task -= sequence->queries * args.kv_heads;
    ++sequence;
  }
  return {sequence, task / args.kv_heads, task % args.kv_heads};
}

constexpr std::int64_t kMostHeads = 4;  // no less than kHeads

auto scores_of(std::int64_t tokens) {
  return std::make_unique_for_overwrite<float[]>(
      static_cast<std::size_t>(kMostHeads * tokens));
}

struct HeadRows {
  const float* in;
  std::int64_t count;
  const float* norm;  // or null
  std::int64_t token;
};

// Norm and rotation of some heads of one token.
void turn_heads(
    const DecodedAttentionArgs& a, const HeadRows& heads, float* out) {
  const std::int64_t size = a.attention.key_size;
  const float* in = heads.in;
  const auto normed = std::make_unique_for_overwrite<float[]>(
      static_cast<std::size_t>(heads.count * (size + 1)));
  if (heads.norm != nullptr) {
    cpu::rms_norm(
        {.dtype = DType::kFloat32,
         .rows = heads.count,
         .cols = size,
         .x = {const_cast<float*>(in), 1, size, size},
         .w = heads.norm,
         .y = normed.get(),
         .rstd = normed.get() + heads.count * size,
         .eps = a.eps,
         .offset = a.offset});
    in = normed.get();
  }
  if (a.cos == nullptr) {
    std::copy_n(in, heads.count * size, out);
    return;
  }
  const std::int64_t half = a.rotated / 2;
  cpu::rope(
      {.dtype = DType::kFloat32,
       .pairing = a.pairing,
       .tokens = 1,
       .head_size = size,
       .start = 0,
       .rotated = a.rotated,
       .x = {const_cast<float*>(in), heads.count, heads.count * size, size},
       .cos = a.cos + heads.token * half,
       .sin = a.sin + heads.token * half,
       .y = out,
       .sign = 1.0f});
}

// One sequence's token, one key head with its query heads.
void attend_decoded(
    const DecodedAttentionArgs& a,
    std::int64_t token,
    std::int64_t kv_head,
    float* scores) {
  const CachedAttentionArgs& all = a.attention;
  const GrowingCacheArgs& cache = a.sequences[token];
  const std::int64_t group = all.heads / all.kv_heads;
  const std::int64_t at = cache.tokens * all.kv_heads + kv_head;
  const std::int64_t from = token * all.kv_heads + kv_head;
  turn_heads(
      a,
      {a.k + from * all.key_size, 1, a.k_norm, token},
      cache.key + at * all.key_size);
  std::copy_n(
      a.v + from * all.value_size,
      all.value_size,
      cache.value + at * all.value_size);
  const std::int64_t head =
      (token * all.heads + kv_head * group) * all.key_size;
  turn_heads(a, {a.q_in + head, group, a.q_norm, token}, a.q_out + head);
  const CachedSequenceArgs sequence{
      token, 1, cache.tokens + 1, cache.key, cache.value};
  HWY_DYNAMIC_DISPATCH(Attend)(all, sequence, 0, kv_head, scores);
}

}  // namespace

void cpu::decoded_attention(const DecodedAttentionArgs& args) {
  const CachedAttentionArgs& all = args.attention;
  std::int64_t longest = 0, seen = 0;
  for (std::int64_t b = 0; b < all.count; ++b) {
    longest = std::max(longest, args.sequences[b].tokens + 1);
    seen += args.sequences[b].tokens + 1;
  }
  const std::int64_t tasks = all.count * all.kv_heads;
  const std::int64_t work =
      seen * all.heads * (all.key_size + all.value_size) / tasks;
  parallel_rows(tasks, work, [&](auto begin, auto end) {
    const auto scores = scores_of(longest);
    for (std::int64_t i = begin; i < end; ++i) {
      attend_decoded(args, i / all.kv_heads, i % all.kv_heads, scores.get());
    }
  });
}

void cpu::cached_attention(const CachedAttentionArgs& args) {
  std::int64_t queries = 0, longest = 0, seen = 0;
  for (std::int64_t b = 0; b < args.count; ++b) {
    const CachedSequenceArgs& s = args.sequences[b];
    queries += s.queries;
    longest = s.tokens > longest ? s.tokens : longest;
    seen += s.queries * s.tokens;
  }
  const std::int64_t tasks = queries * args.kv_heads;
  if (tasks == 0) return;
  const std::int64_t work =
      seen * args.heads * (args.key_size + args.value_size) / tasks;
  parallel_rows(tasks, work, [&](auto begin, auto end) {
    const auto scores = scores_of(longest);
    for (std::int64_t i = begin; i < end; ++i) {
      const AttentionTask task = task_of(args, i);
      HWY_DYNAMIC_DISPATCH(Attend)
      (args, *task.sequence, task.query, task.kv_head, scores.get());
    }
  });
}

}  // namespace fettle::kernels
#endif
