// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

template <class T>
HWY_INLINE void rotate_half(
    const RopeArgs& a, const T* x, T* y, const float* table) {
  const std::size_t half = a.rotated / 2;
  const float* cos = table;
  const float* sin = table + half;
  for_row(half, [&](std::size_t i, auto part) HWY_ATTR {
    const V c = load(cos + i, part);
    const V s = load(sin + i, part);
    const V first = load(x + i, part);
    const V second = load(x + half + i, part);
    store(hn::NegMulAdd(second, s, hn::Mul(first, c)), y + i, part);
    store(hn::MulAdd(first, s, hn::Mul(second, c)), y + half + i, part);
  });
}

// The values at i, each pair in reverse order.
template <class T, class P>
HWY_INLINE V swapped_pairs(const T* x, std::size_t i, P part) {
#if HWY_TARGET == HWY_SCALAR
  return load(x + (i ^ 1), part);
#else
  return hn::Shuffle2301(load(x + i, part));
#endif
}

template <class T>
HWY_INLINE void rotate_interleaved(
    const RopeArgs& a, const T* x, T* y, const float* table) {
  for_row(a.rotated, [&](std::size_t i, auto part) HWY_ATTR {
    const V v = load(x + i, part);
    const V c = load(table + i, part);
    const V s = load(table + a.rotated + i, part);
    const V swapped = swapped_pairs(x, i, part);
    store(hn::MulAdd(swapped, s, hn::Mul(v, c)), y + i, part);
  });
}

// A token's cosines, then its sines with their sign. Interleaved pairs find
// each value twice, the sine of the first of a pair negated.
void fill_table(const RopeArgs& a, std::int64_t n, float* table) {
  const std::int64_t half = a.rotated / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float c = a.cos[n * half + i];
    const float s = a.sin[n * half + i] * a.sign;
    if (a.pairing == RopePairing::kHalf) {
      table[i] = c;
      table[half + i] = s;
    } else {
      table[2 * i] = table[2 * i + 1] = c;
      table[a.rotated + 2 * i] = -s;
      table[a.rotated + 2 * i + 1] = s;
    }
  }
}

template <class T>
void rotate(const RopeArgs& a, std::int64_t n, const float* table) {
  const std::int64_t heads = a.x.heads;
  const std::int64_t end = a.start + a.rotated;
  for (std::int64_t r = n * heads; r < (n + 1) * heads; ++r) {
    const T* x = static_cast<const T*>(a.x.data) + row_offset(a.x, r);
    T* y = static_cast<T*>(a.y) + r * a.head_size;
    std::memcpy(y, x, a.start * sizeof(T));
    std::memcpy(y + end, x + end, (a.head_size - end) * sizeof(T));
    if (a.pairing == RopePairing::kHalf) {
      rotate_half(a, x + a.start, y + a.start, table);
    } else {
      rotate_interleaved(a, x + a.start, y + a.start, table);
    }
  }
}

// `table` is room for 2·rotated values.
void RotateTokens(
    const RopeArgs& a, std::int64_t begin, std::int64_t end, float* table) {
  for (std::int64_t n = begin; n < end; ++n) {
    fill_table(a, n, table);
    a.dtype == DType::kFloat32 ? rotate<float>(a, n, table)
                               : rotate<Bf16>(a, n, table);
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(RotateTokens);

void cpu::rope(const RopeArgs& args) {
  const std::int64_t work = 3 * args.x.heads * args.head_size;
  parallel_rows(args.tokens, work, [&](auto begin, auto end) {
    std::vector<float> table(2 * args.rotated);
    HWY_DYNAMIC_DISPATCH(RotateTokens)(args, begin, end, table.data());
  });
}

}  // namespace fettle::kernels
#endif
