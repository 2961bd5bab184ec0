// SPDX-License-Identifier: Apache-2.0
// A tile of rows, one a lane, is laid out once and meets all rows of x. Sums
// of a block are integers, so that nothing but the order of blocks matters.
#include <hwy/cache_control.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cpu/product_rows.h"
#include "kernels/cpu/rounded.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rounded_products.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/packed_row-inl.h"
#include "kernels/cpu/rounded_tile-inl.h"

#ifndef FETTLE_KERNELS_CPU_ROUNDED_SCRATCH
#define FETTLE_KERNELS_CPU_ROUNDED_SCRATCH
namespace fettle::kernels {

// A thread's memory for the tile of one matrix.
struct RoundedScratch {
  std::vector<std::uint32_t> words;
  std::vector<std::uint32_t> bytes;  // of trits, before they are apart
  std::vector<float> scales;
  std::vector<std::int32_t> zeros;
  std::vector<std::int8_t> codes;
  bool vnni = false;
};

}  // namespace fettle::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
// Rows of x that share the loads of a tile: as many as have registers.
inline constexpr int kMostTogether = HWY_TARGET == HWY_AVX3 ? 8 : 4;

struct RoundedTile {
  const std::uint32_t* words;  // [words, lanes]
  const float* scales;         // [groups, lanes]
  const std::int32_t* zeros;   // [groups, lanes], or null
  std::int32_t zero;           // of all, where there are none
  std::int64_t group;
  int rows;  // that there are
};

// Sums of four products in each lane over the words [0, count), for N rows of
// x, `stride` codes apart. Chains of their own need not wait for each other.
template <int P, int N, Dot kDot>
HWY_INLINE void dot_words(
    const std::uint32_t* words,
    std::int64_t count,
    const std::int8_t* x,
    std::int64_t stride,
    Ints4 (&sums)[N]) {
  constexpr int kChains = N >= 4 ? 1 : 4 / N;
  constexpr int kAtOnce = kChains > P ? kChains / P : 1;
  Ints4 parts[N][kChains];
  for (int n = 0; n < N; ++n) {
    for (int c = 0; c < kChains; ++c) parts[n][c] = hn::Zero(Int());
  }
  const auto add = [&](std::int64_t i, int u) HWY_ATTR {
    const auto word = hn::LoadU(Word(), words + i * kLanes);
    for (int p = 0; p < P; ++p) {
      const auto codes = plane<P>(word, p);
      const int c = (u * P + p) % kChains;
      for (int n = 0; n < N; ++n) {
        parts[n][c] = add_dots<kDot>(
            parts[n][c], codes, x + n * stride + (i * P + p) * 4);
      }
    }
  };
  std::int64_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) {
    for (int u = 0; u < kAtOnce; ++u) add(i + u, u);
  }
  for (; i < count; ++i) add(i, 0);
  for (int n = 0; n < N; ++n) {
    sums[n] = parts[n][0];
    for (int c = 1; c < kChains; ++c) sums[n] = hn::Add(sums[n], parts[n][c]);
  }
}

template <int P, int N, Dot kDot>
void meet_rounded(
    const RoundedTile& tile,
    const RoundedRows& x,
    std::int64_t row,
    float* y,
    std::int64_t y_stride) {
  const RoundedShape& s = x.shape;
  const std::int64_t stride = s.row_codes();
  V sums[N];
  for (int n = 0; n < N; ++n) sums[n] = hn::Zero(D());
  for (std::int64_t b = 0; b < s.blocks; ++b) {
    const std::int64_t begin = s.first_word(b);
    Ints4 dots[N];
    dot_words<P, N, kDot>(
        tile.words + begin * kLanes,
        s.end_word(b) - begin,
        x.codes + row * stride + s.first_code(b),
        stride,
        dots);
    const std::int64_t group = b * s.block / tile.group;
    const V scale = hn::LoadU(D(), tile.scales + group * kLanes);
    for (int n = 0; n < N; ++n) {
      const std::int64_t at = (row + n) * s.blocks + b;
      const auto sum = hn::Set(Int(), x.sums[at]);
      const auto zero = tile.zeros == nullptr
                            ? hn::Set(Int(), tile.zero)
                            : hn::LoadU(Int(), tile.zeros + group * kLanes);
      const auto less = hn::Sub(dots[n], hn::Mul(zero, sum));
      sums[n] = hn::MulAdd(
          hn::ConvertTo(D(), less),
          hn::Mul(scale, hn::Set(D(), x.scales[at])),
          sums[n]);
    }
  }
  for (int n = 0; n < N; ++n) {
    float* out = y + n * y_stride;
    if (tile.rows == kLanes) {
      store(sums[n], out, Whole{});
    } else {
      store(sums[n], out, Part{static_cast<std::size_t>(tile.rows)});
    }
  }
}

template <int P, Dot kDot>
void meet_all(
    const RoundedTile& tile, const RoundedProductArgs& p, std::int64_t row) {
  std::int64_t n = 0;
  const auto y = [&] { return p.y + n * p.y_stride + row; };
  for (; n + kMostTogether <= p.n; n += kMostTogether) {
    meet_rounded<P, kMostTogether, kDot>(tile, p.x, n, y(), p.y_stride);
  }
  if (n + 4 <= p.n) {
    meet_rounded<P, 4, kDot>(tile, p.x, n, y(), p.y_stride), n += 4;
  }
  if (n + 2 <= p.n) {
    meet_rounded<P, 2, kDot>(tile, p.x, n, y(), p.y_stride), n += 2;
  }
  if (n < p.n) meet_rounded<P, 1, kDot>(tile, p.x, n, y(), p.y_stride);
}

// The bytes of a tile's rows as words; those that a row lacks are 0. Reading
// across rows is not foreseen by processors: the bytes behind the tile, the
// next one's, are fetched ahead.
void lay_words(
    const std::uint8_t* const* rows,
    std::int64_t row_bytes,
    std::uint8_t bias,
    std::uint32_t* out) {
  const std::uint8_t* ahead = rows[kLanes - 1] + row_bytes;
  std::int64_t at = 0;
  for (; at + 16 <= row_bytes; at += 16, out += 4 * kLanes) {
    for (int line = 0; line < 16 * kLanes; line += 64) {
      hwy::Prefetch(ahead + line);
    }
    ahead += 16 * kLanes;
    turn_words(rows, at, bias, out);
  }
  if (at == row_bytes) return;
  std::uint8_t rest[kLanes][16] = {};
  const std::uint8_t* ends[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    std::memcpy(
        rest[i], rows[i] + at, static_cast<std::size_t>(row_bytes - at));
    ends[i] = rest[i];
  }
  turn_words(ends, 0, bias, out);
}

void lay_scales(
    const PackedArgs& m,
    const std::int64_t (&rows)[kLanes],
    RoundedScratch& scratch) {
  for (int i = 0; i < kLanes; ++i) {
    for (std::int64_t g = 0; g < m.groups; ++g) {
      const auto at = static_cast<std::size_t>(g * kLanes + i);
      const std::int64_t from = rows[i] * m.groups + g;
      const std::uint32_t bits = static_cast<std::uint32_t>(m.scales[from])
                                 << 16;
      std::memcpy(&scratch.scales[at], &bits, sizeof bits);
      if (m.zeros != nullptr) scratch.zeros[at] = m.zeros[from];
    }
  }
}

// Whether rows become codes of their own before they are laid out.
bool needs_codes(const PackedArgs& m) {
  return m.kind == PackedKind::kInt ? m.bits == 3
                                    : m.kind != PackedKind::kTernary;
}

// Lays out the tile of rows from `row` on, a row that isn't there being the
// last one again. False where codes are damaged.
bool lay_tile(
    const PackedArgs& m, std::int64_t row, int count, RoundedScratch& scratch) {
  std::int64_t numbers[kLanes];
  const std::uint8_t* rows[kLanes];
  for (int i = 0; i < kLanes; ++i)
    numbers[i] = row + (i < count ? i : count - 1);
  lay_scales(m, numbers, scratch);
  if (!needs_codes(m)) {
    for (int i = 0; i < kLanes; ++i) {
      rows[i] = m.codes + numbers[i] * m.row_bytes;
    }
    if (m.kind == PackedKind::kInt) {
      lay_words(rows, m.row_bytes, 0, scratch.words.data());
    } else {
      lay_words(rows, m.row_bytes, 0, scratch.bytes.data());
      take_trits_apart(
          scratch.bytes.data(), (m.row_bytes + 3) / 4, scratch.words.data());
    }
    return true;
  }
  for (int i = 0; i < kLanes; ++i) {
    std::int8_t* codes = scratch.codes.data() +
                         std::min(i, count - 1) * (m.cols + cpu::kBehindCodes);
    if (i < count && !row_codes(m, numbers[i], codes)) return false;
    rows[i] = reinterpret_cast<const std::uint8_t*>(codes);
  }
  const std::uint8_t bias = m.kind == PackedKind::kInt ? 1 << (m.bits - 1) : 1;
  lay_words(rows, m.cols, bias, scratch.words.data());
  return true;
}

void make_room(
    const PackedArgs& m, const RoundedShape& shape, RoundedScratch& scratch) {
  const auto grow = [](auto& values, std::int64_t count) {
    const auto size = static_cast<std::size_t>(count);
    if (values.size() < size) values.resize(size);
  };
  grow(scratch.words, shape.words * kLanes);
  if (shape.trits) grow(scratch.bytes, (m.row_bytes + 15) / 16 * 4 * kLanes);
  grow(scratch.scales, m.groups * kLanes);
  if (m.zeros != nullptr) grow(scratch.zeros, m.groups * kLanes);
  if (needs_codes(m)) {
    grow(scratch.codes, kLanes * (m.cols + cpu::kBehindCodes));
  }
}

template <Dot kDot>
void meet_planes(
    const RoundedTile& tile, const RoundedProductArgs& p, std::int64_t row) {
  if (p.x.shape.planes == 1) meet_all<1, kDot>(tile, p, row);
  if (p.x.shape.planes == 2) meet_all<2, kDot>(tile, p, row);
  if (p.x.shape.planes == 4) meet_all<4, kDot>(tile, p, row);
}

std::int64_t RowsOfATile() { return kLanes; }

// Rows [begin, end), whole tiles but for the matrix's last.
bool RoundedRowsOf(
    const RoundedProductArgs& p,
    std::int64_t begin,
    std::int64_t end,
    RoundedScratch& scratch) {
  const PackedArgs& m = p.matrix;
  make_room(m, p.x.shape, scratch);
  const bool trits = m.kind != PackedKind::kInt;
  RoundedTile tile{
      scratch.words.data(),
      scratch.scales.data(),
      m.zeros == nullptr ? nullptr : scratch.zeros.data(),
      trits ? 1 : 1 << (m.bits - 1),
      m.group,
      kLanes};
  for (std::int64_t row = begin; row < end; row += kLanes) {
    tile.rows = static_cast<int>(std::min<std::int64_t>(kLanes, end - row));
    if (!lay_tile(m, row, tile.rows, scratch)) return false;
#if HWY_TARGET == HWY_AVX3
    if (scratch.vnni) {
      meet_planes<Dot::kVnni>(tile, p, row);
      continue;
    }
#endif
    if (trits || m.bits < 8) {
      meet_planes<Dot::kSmall>(tile, p, row);
    } else {
      meet_planes<Dot::kAny>(tile, p, row);
    }
  }
  return true;
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {
namespace {

HWY_EXPORT(RoundedRowsOf);
HWY_EXPORT(RowsOfATile);

bool has_vnni() {
#if HWY_ARCH_X86
  return __builtin_cpu_supports("avx512vnni") != 0;
#else
  return false;
#endif
}

// Laying out a weight takes about as long as three products with it.
std::int64_t row_work(const RoundedProductArgs& p) {
  return p.matrix.cols * (p.n + 3) + 1;
}

// A thread's own product of rows.
auto make_multiply() {
  RoundedScratch scratch;
  scratch.vnni = has_vnni();
  return [scratch = std::move(scratch)](
             const RoundedProductArgs& p,
             std::int64_t first,
             std::int64_t last) mutable {
    return p.n == 0 ||
           HWY_DYNAMIC_DISPATCH(RoundedRowsOf)(p, first, last, scratch);
  };
}

}  // namespace

std::int64_t rounded_block(std::int64_t group, std::int64_t cols) {
  const std::int64_t whole = (cols + 15) / 16 * 16;
  if (group >= cols) return std::min(kMostOfABlock, whole);
  if (group % 16 != 0) return 0;
  if (group <= kMostOfABlock) return group;
  for (const std::int64_t block : {256, 128, 64, 32}) {
    if (group % block == 0) return block;
  }
  return 16;
}

RoundedShape rounded_shape(const PackedArgs& m) {
  const bool narrow = m.kind == PackedKind::kInt && m.bits != 3;
  const bool trits = m.kind == PackedKind::kTernary;
  const std::int64_t planes = narrow ? 8 / m.bits : 1;
  const std::int64_t codes = trits ? 80 : 16 * planes;
  const std::int64_t block = rounded_block(m.group, m.cols);
  return {
      .cols = m.cols,
      .planes = planes,
      .trits = trits,
      .words = (m.cols + codes - 1) / codes * (trits ? 20 : 4),
      .block = block,
      .blocks = block == 0 ? 0 : (m.cols + block - 1) / block};
}

bool cpu::rounded_products(
    const RoundedProductArgs* products, std::int64_t count) {
  const std::span all(products, static_cast<std::size_t>(count));
  const std::int64_t tile = HWY_DYNAMIC_DISPATCH(RowsOfATile)();
  return multiply_all_rows(all, tile, row_work, make_multiply);
}

bool cpu::share_of_rounded_products(
    std::span<const RoundedProductArgs> products, const Share& share) {
  const std::int64_t tile = HWY_DYNAMIC_DISPATCH(RowsOfATile)();
  return multiply_share(products, tile, row_work, make_multiply, share);
}

}  // namespace fettle::kernels
#endif
