// SPDX-License-Identifier: Apache-2.0
// Products with matrices of whole strips. A block has x in its shared memory,
// as floats. A team of lanes, at most a warp, takes four rows of the matrix, so
// that what it loads of x serves for four weights, and a lane a strip of each.
// Scale and zero are applied to a strip's sum: scale x (sum of code x - zero x
// sum of x).
#include <algorithm>
#include <type_traits>

#include "kernels/gpu/packed_products.h"
#include "kernels/gpu/packed_strip.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kRows = 4;  // of a team
constexpr int kLargestTeam = 32;

struct alignas(16) Quad {
  float x[4];
};

// A part of N rows of x: N x strips x quads. One strip more than there is
// parts the banks of a strip's quads.
template <int kBits, int N>
struct Stage {
  static constexpr int kFloats = N <= 2 ? 4096 : 8192;
  static constexpr int kStrips = kFloats / N / kStripCols<kBits>;
  Quad quads[N][kStripQuads<kBits>][kStrips + 1];
};

// Zeros where x has no value.
template <class T, int kBits, int N>
__device__ inline void stage_x(
    const ProductItem& item,
    std::int64_t first,
    std::uint32_t begin,
    std::uint32_t strips,
    Stage<kBits, N>& stage) {
  constexpr std::uint32_t kQuads = kStripQuads<kBits>;
  for (std::uint32_t i = threadIdx.x; i < strips * kQuads;
       i += kProductThreads) {
    const std::uint32_t strip = i / kQuads, quad = i % kQuads;
    const int at =
        4 * static_cast<int>(quad) - strip_skips<kBits>(begin + strip);
    const T* x = static_cast<const T*>(item.x) + first * item.x_stride +
                 std::int64_t{begin + strip} * kStripCols<kBits> + at;
#pragma unroll
    for (int r = 0; r < N; ++r) {
      Quad q;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool within = static_cast<unsigned>(at + j) < kStripCols<kBits>;
        const float value =
            within && first + r < item.n ? to_float(x[j]) : 0.0f;
        const int place = code_place<kBits>(4 * static_cast<int>(quad) + j);
        q.x[j] = value * power_of_two(64 - place);
      }
      stage.quads[r][quad][strip] = q;
      x += item.x_stride;
    }
  }
}

// The sums of a strip of kRows rows, without scales: of code x, times 2^-85,
// and of x.
template <int kBits, int N>
__device__ inline void sum_strip(
    const Strip<kBits> (&codes)[kRows],
    const Stage<kBits, N>& stage,
    std::uint32_t strip,
    const std::uint32_t* table,
    float (&sums)[kRows][N],
    float (&of_x)[N]) {
#pragma unroll
  for (int q = 0; q < kStripQuads<kBits>; ++q) {
    float w[kRows][4];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        w[i][j] = strip_code<kBits>(codes[i], 4 * q + j, table);
      }
    }
#pragma unroll
    for (int r = 0; r < N; ++r) {
      const Quad v = stage.quads[r][q][strip];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        of_x[r] += v.x[j] * power_of_two(code_place<kBits>(4 * q + j) - 64);
#pragma unroll
        for (int i = 0; i < kRows; ++i) sums[i][r] += w[i][j] * v.x[j];
      }
    }
  }
}

// Where a row's codes begin, and its scales.
struct RowBegin {
  const std::uint8_t* codes;
  std::int64_t group;
};

// A strip of kRows rows, with its group's scales and zeros. Nothing is computed
// of what is loaded before it is needed: that would wait for it.
template <int kBits>
struct Strips {
  Strip<kBits> codes[kRows];
  Bf16 scales[kRows];
  std::uint32_t zeros[kRows];

  __device__ void load(
      const ProductItem& item,
      const RowBegin (&rows)[kRows],
      std::uint32_t strip) {
    const PackedArgs& m = item.matrix;
    const std::uint32_t group = item.groups.of(strip * kStripCols<kBits>);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      codes[i] = load_strip<kBits>(m, rows[i].codes, strip);
      scales[i] = Bf16{m.scales[rows[i].group + group]};
      zeros[i] = zero_code_at<kBits>(m, rows[i].group + group);
    }
  }
};

template <int kBits, int N>
__device__ inline void add_strips(
    const Strips<kBits>& strips,
    std::uint32_t staged,
    const Stage<kBits, N>& stage,
    const std::uint32_t* table,
    float (&sums)[kRows][N]) {
  float of_codes[kRows][N] = {}, of_x[N] = {};
  sum_strip<kBits, N>(strips.codes, stage, staged, table, of_codes, of_x);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float scale = to_float(strips.scales[i]);
    const auto zero = static_cast<float>(strips.zeros[i]);
#pragma unroll
    for (int r = 0; r < N; ++r) {
      const float sum = of_codes[i][r] * power_of_two(85) - zero * of_x[r];
      sums[i][r] += scale * sum;
    }
  }
}

// Lane l gets the sum over its team of value l % kAll. Each step halves the
// values that a lane still has to do with.
template <int kAll, int K>
__device__ inline float sums_over_team(const float (&values)[K], int team) {
  if constexpr (K == 1) {
    float sum = values[0];
    for (int mask = kAll; mask < team; mask *= 2) {
      sum += shuffle_xor(sum, mask);
    }
    return sum;
  } else {
    constexpr int kHalf = K / 2;
    const bool upper = (threadIdx.x & kHalf) != 0;
    float halved[kHalf];
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      const float kept = upper ? values[k + kHalf] : values[k];
      const float given = upper ? values[k] : values[k + kHalf];
      halved[k] = kept + shuffle_xor(given, kHalf);
    }
    return sums_over_team<kAll>(halved, team);
  }
}

// All threads of the block come here with the same `first`.
template <class T, int kBits, int N>
__device__ inline void multiply_rows(
    const ProductItem& item,
    std::int64_t row,
    std::int64_t first,
    int team,
    const std::uint32_t* table,
    Stage<kBits, N>& stage) {
  constexpr std::uint32_t kStrips = Stage<kBits, N>::kStrips;
  const PackedArgs& m = item.matrix;
  const std::uint32_t all =
      static_cast<std::uint32_t>(m.cols) / kStripCols<kBits>;
  const std::uint32_t lane = threadIdx.x % team;
  RowBegin rows[kRows];  // the last one again behind it
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const std::int64_t r = row + i < m.rows ? row + i : m.rows - 1;
    rows[i] = {m.codes + r * m.row_bytes, r * m.groups};
  }
  float sums[kRows][N] = {};
  for (std::uint32_t begin = 0; begin < all; begin += kStrips) {
    const std::uint32_t count = all - begin < kStrips ? all - begin : kStrips;
    Strips<kBits> strips;  // the first ones come while x is staged
    if (lane < count) strips.load(item, rows, begin + lane);
    if (begin > 0) __syncthreads();  // what was staged is no longer read
    stage_x<T, kBits, N>(item, first, begin, count, stage);
    __syncthreads();
    for (std::uint32_t strip = lane; strip < count;) {
      add_strips<kBits, N>(strips, strip, stage, table, sums);
      strip += team;
      if (strip < count) strips.load(item, rows, begin + strip);
    }
  }
  float values[kRows * N];
#pragma unroll
  for (int i = 0; i < kRows * N; ++i) values[i] = sums[i / N][i % N];
  const float sum = sums_over_team<kRows * N>(values, team);
  const std::int64_t to = row + lane / N, token = first + lane % N;
  if (lane < kRows * N && to < m.rows && token < item.n) {
    static_cast<T*>(item.y)[token * item.y_stride + to] = from_float<T>(sum);
  }
}

template <class T, int kBits, int N>
__global__ void __launch_bounds__(kProductThreads, N <= 2 ? 3 : 2)
    multiply(const ProductBatch batch, int team) {
  __shared__ std::uint32_t table[kTritBytes];
  __shared__ Stage<kBits, N> stage;
  const ProductItem& item = batch.mine();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * N;
  if (first >= item.n) return;
  if constexpr (kBits == kTrits) make_trit_table<kProductThreads>(table);
  const auto teams = static_cast<unsigned>(kProductThreads / team);
  const std::int64_t of_item =
      (blockIdx.x - item.first_block) * teams + threadIdx.x / team;
  multiply_rows<T, kBits, N>(item, kRows * of_item, first, team, table, stage);
}

// A lane for every strip, if there are enough; but one for every sum.
template <int kBits>
int team_of(const ProductBatch& batch, int sums) {
  std::int64_t strips = 0;
  for (int i = 0; i < batch.count; ++i) {
    strips = std::max(strips, batch.items[i].matrix.cols / kStripCols<kBits>);
  }
  int team = sums;
  while (team < kLargestTeam && team < strips) team *= 2;
  return team;
}

template <class T, int kBits>
void start(ProductBatch& batch, Stream s) {
  const auto with_rows = [&](auto count) {
    constexpr int N = decltype(count)::value;
    const int team = team_of<kBits>(batch, kRows * N);
    batch.deal_blocks(kProductThreads / team * kRows);
    const dim3 grid(
        static_cast<unsigned>(batch.blocks), blocks_for(batch.n, N));
    launch(multiply<T, kBits, N>, grid, kProductThreads, s, batch, team);
  };
  if (batch.n <= 1) {
    with_rows(std::integral_constant<int, 1>());
  } else if (batch.n <= 2) {
    with_rows(std::integral_constant<int, 2>());
  } else if (batch.n <= 4 || kBits == kTrits) {
    // Of eight rows, too few strips of trits could be staged for a team.
    with_rows(std::integral_constant<int, 4>());
  } else if constexpr (kBits != kTrits) {
    with_rows(std::integral_constant<int, 8>());
  }
}

bool has_whole_strips(const PackedArgs& m, std::int64_t cols) {
  return m.cols % cols == 0 && (m.group % cols == 0 || m.group >= m.cols);
}

}  // namespace

int strip_bits(const PackedArgs& m) {
  if (m.kind == PackedKind::kTernary) {
    return has_whole_strips(m, kStripCols<kTrits>) ? kTrits : -1;
  }
  const std::int64_t cols = m.bits == 8 ? kStripCols<8> : kStripCols<4>;
  return aligned16(m.codes) && has_whole_strips(m, cols) ? m.bits : -1;
}

void multiply_strips(ProductBatch batch, int bits, DType dtype, Stream s) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    switch (bits) {
      case 2:
        return start<T, 2>(batch, s);
      case 3:
        return start<T, 3>(batch, s);
      case 4:
        return start<T, 4>(batch, s);
      case 8:
        return start<T, 8>(batch, s);
      default:
        return start<T, kTrits>(batch, s);
    }
  });
}

}  // namespace fettle::kernels::gpu
