// SPDX-License-Identifier: Apache-2.0
// A chunk is what lies together: eight codes of integers, or the five trits of
// a byte. Unpacking takes a thread a chunk, a product a warp a row.
#include <algorithm>
#include <type_traits>

#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"
#include "kernels/gpu/trit_code.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kTrits = 0;  // in place of bits
constexpr std::int64_t kMostCols = std::int64_t{1} << 31;

template <int kBits>
constexpr int kCodes = kBits == kTrits ? 5 : 8;
template <int kBits>
constexpr int kBytes = kBits == kTrits ? 1 : kBits;

// A matrix, and whether a chunk of it may be loaded at once.
struct Source {
  PackedArgs matrix;
  bool aligned;
};

// The bits of 2^23 plus a code are the code's and those of 2^23.
__device__ inline float number(std::uint32_t code) {
  return __uint_as_float(code | 0x4b000000u) - 8388608.0f;
}

__device__ inline void read_trits(const std::uint8_t* p, float (&out)[5]) {
  std::uint32_t rest = *p;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    out[j] = number(rest % 3);
    rest /= 3;
  }
  out[4] = number(rest);  // 3 in a byte above 242, which no packing makes
}

template <int kBits>
__device__ inline void read_ints(
    const std::uint8_t* p, bool aligned, float (&out)[8]) {
  std::uint8_t bytes[kBits];
  if (kBits != 3 && aligned) {
    constexpr int kLoaded = kBits == 3 ? 1 : kBits;
    const auto pack = *reinterpret_cast<const Pack<std::uint8_t, kLoaded>*>(p);
#pragma unroll
    for (int i = 0; i < kLoaded; ++i) bytes[i] = pack.values[i];
  } else {
#pragma unroll
    for (int i = 0; i < kBits; ++i) bytes[i] = p[i];
  }
  std::uint64_t bits = 0;
#pragma unroll
  for (int i = 0; i < kBits; ++i) bits |= std::uint64_t{bytes[i]} << 8 * i;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    out[j] = number(
        static_cast<std::uint32_t>(bits >> kBits * j) & ((1u << kBits) - 1));
  }
}

struct GroupScale {
  float scale, zero;
};

template <int kBits>
__device__ inline GroupScale group_scale(
    const PackedArgs& m, std::int64_t row, std::uint32_t group) {
  const std::int64_t at = row * m.groups + group;
  GroupScale by{to_float(Bf16{m.scales[at]}), 1.0f};
  if constexpr (kBits != kTrits) {
    by.zero = m.zeros == nullptr ? static_cast<float>(1 << (kBits - 1))
                                 : static_cast<float>(m.zeros[at]);
  }
  return by;
}

// The weights of the chunk that begins at column `col`.
template <int kBits>
__device__ inline void weights(
    const Source& source,
    std::int64_t row,
    std::uint32_t col,
    float (&out)[kCodes<kBits>]) {
  const PackedArgs& m = source.matrix;
  const std::uint8_t* p =
      m.codes + row * m.row_bytes +
      static_cast<std::int64_t>(col) / kCodes<kBits> * kBytes<kBits>;
  if constexpr (kBits == kTrits) {
    read_trits(p, out);
  } else {
    read_ints<kBits>(p, source.aligned, out);
  }
  const auto size = static_cast<std::uint32_t>(m.group);
  const auto cols = static_cast<std::uint32_t>(m.cols);
  std::uint32_t group = col / size;
  std::uint32_t next = (group + 1) * size;
  GroupScale by = group_scale<kBits>(m, row, group);
#pragma unroll
  for (int j = 0; j < kCodes<kBits>; ++j) {
    if (col + j == next && next < cols) {
      by = group_scale<kBits>(m, row, ++group);
      next += size;
    }
    out[j] = (out[j] - by.zero) * by.scale;
  }
}

template <class T, int kBits>
__global__ void unpack(const UnpackRowsArgs a, bool aligned, bool wide) {
  constexpr int kCount = kCodes<kBits>;
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t chunks = (a.matrix.cols + kCount - 1) / kCount;
  if (item >= a.rows * chunks) return;
  const std::int64_t r = item / chunks;
  const std::int64_t col = item % chunks * kCount;
  float values[kCount];
  weights<kBits>(
      {a.matrix, aligned},
      a.first + r,
      static_cast<std::uint32_t>(col),
      values);
  T* out = static_cast<T*>(a.out) + r * a.stride + col;
  if (kCount == 8 && wide && col + kCount <= a.matrix.cols) {
    constexpr int kStored = kWide<T>;
#pragma unroll
    for (int j = 0; j + kStored <= kCount; j += kStored) {
      float part[kStored];
#pragma unroll
      for (int i = 0; i < kStored; ++i) part[i] = values[j + i];
      store<kStored>(part, out + j);
    }
  } else {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (col + j < a.matrix.cols) out[j] = from_float<T>(values[j]);
    }
  }
}

// One product of a launch.
struct Item {
  Source source;
  std::int64_t n;
  const void* x;
  void* y;
  std::int64_t x_stride, y_stride;
  bool wide;               // rows of x may be loaded 16 bytes at a time
  std::int64_t first_row;  // of the launch
};

// Descriptors travel as an argument, for which there is room for 4 KB.
constexpr int kMostItems = 16;

struct Batch {
  Item items[kMostItems];
  int count;
  std::int64_t rows, n;  // of all, and the largest
};
static_assert(sizeof(Batch) < 4096);

// Zeros behind the row's end.
template <class T, int kCount>
__device__ inline void load_x(
    const T* x, std::int64_t left, bool wide, float (&out)[kCount]) {
  if (kCount == 8 && wide && left >= kCount) {
    constexpr int kLoaded = kWide<T>;
#pragma unroll
    for (int j = 0; j + kLoaded <= kCount; j += kLoaded) {
      float part[kLoaded];
      load<kLoaded>(x + j, part);
#pragma unroll
      for (int i = 0; i < kLoaded; ++i) out[j + i] = part[i];
    }
  } else {
#pragma unroll
    for (int j = 0; j < kCount; ++j) out[j] = j < left ? to_float(x[j]) : 0.0f;
  }
}

// A thread's part of the sums of one row of the matrix and N rows of x.
template <class T, int kBits, int N>
__device__ inline void add_chunks(
    const Item& item, std::int64_t row, std::int64_t first, float (&sums)[N]) {
  constexpr int kCount = kCodes<kBits>;
  const std::int64_t cols = item.source.matrix.cols;
  const T* x = static_cast<const T*>(item.x) + first * item.x_stride;
  std::int64_t col = threadIdx.x % warpSize * kCount;
  for (; col < cols; col += warpSize * kCount) {
    float w[kCount], v[kCount];
    weights<kBits>(item.source, row, static_cast<std::uint32_t>(col), w);
#pragma unroll
    for (int r = 0; r < N; ++r) {
      if (first + r >= item.n) break;
      load_x(x + r * item.x_stride + col, cols - col, item.wide, v);
#pragma unroll
      for (int j = 0; j < kCount; ++j) sums[r] += w[j] * v[j];
    }
  }
}

template <class T, int N>
__device__ inline void multiply_row(
    const Item& item, std::int64_t row, std::int64_t first) {
  float sums[N] = {};
  const PackedArgs& m = item.source.matrix;
  switch (m.kind == PackedKind::kInt ? m.bits : kTrits) {
    case 2:
      add_chunks<T, 2>(item, row, first, sums);
      break;
    case 3:
      add_chunks<T, 3>(item, row, first, sums);
      break;
    case 4:
      add_chunks<T, 4>(item, row, first, sums);
      break;
    case 8:
      add_chunks<T, 8>(item, row, first, sums);
      break;
    default:
      add_chunks<T, kTrits>(item, row, first, sums);
  }
#pragma unroll
  for (int r = 0; r < N; ++r) {
    const float sum = over_warp<Sum>(sums[r]);
    if (threadIdx.x % warpSize == 0 && first + r < item.n) {
      T* y = static_cast<T*>(item.y);
      y[(first + r) * item.y_stride + row] = from_float<T>(sum);
    }
  }
}

// A block has more warps of 32 than of 64: rows are dealt out by the device.
template <class T, int N>
__global__ void multiply(const Batch batch) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * N;
  const int warps = kThreads / warpSize;
  std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / warpSize;
  int i = 0;
  for (; row < batch.rows;
       row += static_cast<std::int64_t>(gridDim.x) * warps) {
    while (i + 1 < batch.count && row >= batch.items[i + 1].first_row) ++i;
    const Item& item = batch.items[i];
    if (first < item.n) multiply_row<T, N>(item, row - item.first_row, first);
  }
}

template <class T>
void run(const Batch& batch, Stream s) {
  const auto start = [&](auto count) {
    constexpr int N = decltype(count)::value;
    const dim3 grid(
        blocks_for(batch.rows, kThreads / 32), blocks_for(batch.n, N));
    launch(multiply<T, N>, grid, kThreads, s, batch);
  };
  if (batch.n <= 1) {
    start(std::integral_constant<int, 1>());
  } else if (batch.n <= 2) {
    start(std::integral_constant<int, 2>());
  } else if (batch.n <= 4) {
    start(std::integral_constant<int, 4>());
  } else {
    start(std::integral_constant<int, 8>());
  }
}

// Groups longer than a row are as long as one, so that sums fit 32 bits.
Source source_of(const PackedArgs& matrix) {
  Source source{matrix, false};
  source.matrix.group = std::min(matrix.group, matrix.cols);
  source.aligned = reinterpret_cast<std::uintptr_t>(matrix.codes) % 8 == 0;
  return source;
}

template <class T>
Item item_of(const PackedProductArgs& p, std::int64_t first_row) {
  const Rows x{const_cast<void*>(p.x), 1, p.x_stride, 0};
  return {
      .source = source_of(p.matrix),
      .n = p.n,
      .x = p.x,
      .y = p.y,
      .x_stride = p.x_stride,
      .y_stride = p.y_stride,
      .wide = aligned16(x, sizeof(T)),
      .first_row = first_row};
}

template <class T>
void unpack_as(const UnpackRowsArgs& args, Stream s) {
  const Source source = source_of(args.matrix);
  UnpackRowsArgs a = args;
  a.matrix = source.matrix;
  const bool wide = aligned16({a.out, 1, a.stride, 0}, sizeof(T));
  const auto start = [&](auto bits) {
    constexpr int kBits = decltype(bits)::value;
    const std::int64_t chunks =
        (a.matrix.cols + kCodes<kBits> - 1) / kCodes<kBits>;
    launch(
        unpack<T, kBits>,
        blocks_for(a.rows * chunks, kThreads),
        kThreads,
        s,
        a,
        source.aligned,
        wide);
  };
  switch (a.matrix.kind == PackedKind::kInt ? a.matrix.bits : kTrits) {
    case 2:
      return start(std::integral_constant<int, 2>());
    case 3:
      return start(std::integral_constant<int, 3>());
    case 4:
      return start(std::integral_constant<int, 4>());
    case 8:
      return start(std::integral_constant<int, 8>());
    default:
      return start(std::integral_constant<int, kTrits>());
  }
}

constexpr const char* kTooWide = "a packed row has 2^31 columns or more";

}  // namespace

const char* unpack_rows(const UnpackRowsArgs& a, void* stream) {
  if (a.matrix.cols >= kMostCols) return kTooWide;
  if (is_trit_code(a.matrix.kind)) return unpack_trit_rows(a, stream);
  with_type(a.dtype, [&](auto type) {
    unpack_as<decltype(type)>(a, static_cast<Stream>(stream));
  });
  return launch_result();
}

const char* packed_products(const PackedProductsArgs& a, void* stream) {
  for (std::int64_t i = 0; i < a.count; ++i) {
    if (a.products[i].matrix.cols >= kMostCols) return kTooWide;
  }
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    Batch batch{};
    const auto flush = [&] {
      if (batch.count > 0) run<T>(batch, static_cast<Stream>(stream));
      batch = {};
    };
    for (std::int64_t i = 0; i < a.count; ++i) {
      const PackedProductArgs& p = a.products[i];
      if (p.n == 0 || p.matrix.rows == 0) continue;
      if (is_trit_code(p.matrix.kind)) continue;
      batch.items[batch.count++] = item_of<T>(p, batch.rows);
      batch.rows += p.matrix.rows;
      batch.n = std::max(batch.n, p.n);
      if (batch.count == kMostItems) flush();
    }
    flush();
  });
  return trit_products(a, stream);
}

}  // namespace fettle::kernels::gpu
