// SPDX-License-Identifier: Apache-2.0
// A task is one query token and the query heads of one key head: its scores
// are all kept, so that the softmax needs no second look at the keys.
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>

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

template <int H>
HWY_INLINE void score(const Seen& s) {
  for (std::size_t t = 0; t < s.count; ++t) {
    const float* key = s.key + t * s.key_stride();
    V sums[H];
    for (int h = 0; h < H; ++h) sums[h] = hn::Zero(D());
    for_row(s.a.key_size, [&](std::size_t i, auto part) HWY_ATTR {
      const V k = load(key + i, part);
      for (int h = 0; h < H; ++h) {
        sums[h] =
            hn::MulAdd(k, load(s.q + h * s.a.key_size + i, part), sums[h]);
      }
    });
    for (int h = 0; h < H; ++h) {
      s.scores[h * s.count + t] =
          s.a.scale * hn::GetLane(hn::SumOfLanes(D(), sums[h]));
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

template <int H>
HWY_INLINE void mix(const Seen& s) {
  for_row(s.a.value_size, [&](std::size_t i, auto part) HWY_ATTR {
    V sums[H];
    for (int h = 0; h < H; ++h) sums[h] = hn::Zero(D());
    for (std::size_t t = 0; t < s.count; ++t) {
      const V v = load(s.value + t * s.value_stride() + i, part);
      for (int h = 0; h < H; ++h) {
        sums[h] =
            hn::MulAdd(hn::Set(D(), s.scores[h * s.count + t]), v, sums[h]);
      }
    }
    for (int h = 0; h < H; ++h) {
      store(sums[h], s.out + h * s.a.value_size + i, part);
    }
  });
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

}  // namespace

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
    constexpr std::int64_t kMostHeads = 4;  // no less than kHeads
    const auto scores = std::make_unique_for_overwrite<float[]>(
        static_cast<std::size_t>(kMostHeads * longest));
    for (std::int64_t i = begin; i < end; ++i) {
      const AttentionTask task = task_of(args, i);
      HWY_DYNAMIC_DISPATCH(Attend)
      (args, *task.sequence, task.query, task.kv_head, scores.get());
    }
  });
}

}  // namespace fettle::kernels
#endif
