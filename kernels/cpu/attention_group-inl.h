// SPDX-License-Identifier: Apache-2.0
// What attention and its backward share: one key head of one sequence with all
// query heads that read it. That is a task: nothing that two tasks write is
// shared, so results do not depend on the number of threads.
#if defined(FETTLE_KERNELS_CPU_ATTENTION_GROUP_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_ATTENTION_GROUP_INL_H_
#undef FETTLE_KERNELS_CPU_ATTENTION_GROUP_INL_H_
#else
#define FETTLE_KERNELS_CPU_ATTENTION_GROUP_INL_H_
#endif

#include "kernels/cpu/attention.h"
#include "kernels/cpu/scratch-inl.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Queries, and keys, of a tile: a multiple of every vector's lanes. Scores of a
// tile take 16 KiB, half of a first-level cache.
constexpr std::size_t kBlock = 64;

// One key head of one sequence.
struct Group {
  const AttentionArgs& a;
  std::size_t first, length, padded_length;  // tokens
  std::size_t kv_head, heads;                // query heads that read it
  std::size_t key_width, value_width;        // D and Dv, whole vectors

  Group(const AttentionArgs& args, std::int64_t task)
      : a(args),
        first(args.starts[task / args.kv_heads]),
        length(args.starts[task / args.kv_heads + 1] - first),
        padded_length((length + kBlock - 1) / kBlock * kBlock),
        kv_head(task % args.kv_heads),
        heads(args.heads / args.kv_heads),
        key_width(whole_vectors(args.key_size)),
        value_width(whole_vectors(args.value_size)) {}

  Source keys() const {
    const std::size_t size = a.key_size, stride = a.kv_heads * size;
    return {a.k + first * stride + kv_head * size, stride, length, size};
  }
  Source values() const {
    const std::size_t size = a.value_size, stride = a.kv_heads * size;
    return {a.v + first * stride + kv_head * size, stride, length, size};
  }
  // Index of token `row` of the sequence and query head `head` of the group.
  std::size_t index(std::size_t head, std::size_t row) const {
    return (first + row) * a.heads + kv_head * heads + head;
  }
  // `rows` rows from token `row` on of a [N, heads, size] array.
  Source queries(
      const float* data,
      std::size_t size,
      std::size_t head,
      std::size_t row,
      std::size_t rows) const {
    return {data + index(head, row) * size, a.heads * size, rows, size};
  }
  // The first tile of keys that queries from `row` on can see.
  std::size_t first_tile(std::size_t row) const {
    const std::size_t window = a.window;
    if (window == 0 || row + 1 <= window) return 0;
    return (row + 1 - window) / kBlock * kBlock;
  }
  // Sets what query `row` must not see to `hidden`: keys after it, and those
  // before its window. Whether anything is left to see.
  bool mask(
      float* scores, std::size_t row, std::size_t key, float hidden) const {
    const std::size_t end = row < key ? 0 : smaller(kBlock, row + 1 - key);
    fill(scores + end, kBlock - end, hidden);
    const std::size_t window = a.window;
    if (window == 0 || row + 1 <= window + key) return end > 0;
    const std::size_t begin = smaller(kBlock, row + 1 - window - key);
    fill(scores, begin, hidden);
    return begin < end;
  }
};

HWY_INLINE float row_max(const float* row) {
  V top = hn::LoadU(D(), row);
  for (std::size_t i = hn::Lanes(D()); i < kBlock; i += hn::Lanes(D())) {
    top = hn::Max(top, hn::LoadU(D(), row + i));
  }
  return hn::GetLane(hn::MaxOfLanes(D(), top));
}

// row = e^(row − level); returns the sum.
HWY_INLINE float exponentiate(float* row, float level) {
  V sum = hn::Zero(D());
  const V down = hn::Set(D(), level);
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(D())) {
    const V e = exp_negative(hn::Sub(hn::LoadU(D(), row + i), down));
    hn::StoreU(e, D(), row + i);
    sum = hn::Add(sum, e);
  }
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

HWY_INLINE void scale_row(float* row, std::size_t width, float factor) {
  for (std::size_t i = 0; i < width; i += hn::Lanes(D())) {
    const V v = hn::Mul(hn::LoadU(D(), row + i), hn::Set(D(), factor));
    hn::StoreU(v, D(), row + i);
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
