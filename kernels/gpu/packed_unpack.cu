// SPDX-License-Identifier: Apache-2.0
// A thread unpacks the same eight columns of several rows: what it works out
// about columns serves for all of them, and their loads wait together.
#include <type_traits>

#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_eight.h"
#include "kernels/gpu/trit_code.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 4;  // of a thread

struct Unpacking {
  PackedArgs matrix;
  Groups groups;
  std::int64_t first, rows;
  void* out;
  std::int64_t stride;
  int across;  // threads along a row, a power of two
};

template <class T>
__device__ inline void store_eight(const float (&values)[8], T* out) {
  constexpr int kStored = kWide<T>;
#pragma unroll
  for (int j = 0; j < 8; j += kStored) {
    float part[kStored];
#pragma unroll
    for (int i = 0; i < kStored; ++i) part[i] = values[j + i];
    store<kStored>(part, out + j);
  }
}

// The eight columns of kRows rows, `high` apart. What is behind the last row is
// read from it, and not stored.
template <class T, int kBits, bool kEven>
__device__ inline void unpack_eights(
    const Unpacking& u,
    std::int64_t begin,
    int high,
    std::uint32_t eight,
    const std::uint32_t* table) {
  const PackedArgs& m = u.matrix;
  const std::uint32_t group = u.groups.of(8 * eight);
  std::uint64_t codes[kRows];
  float scales[kRows], zeros[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const std::int64_t r = begin + i * high;
    const std::int64_t row = u.first + (r < u.rows ? r : u.rows - 1);
    codes[i] = eight_codes<kBits>(m, row, eight, kEven, table);
    scales[i] = scale_at(m, row * m.groups + group);
    zeros[i] = zero_at<kBits>(m, row * m.groups + group);
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const std::int64_t r = begin + i * high;
    if (r >= u.rows) break;
    T* out = static_cast<T*>(u.out) + r * u.stride + std::size_t{8} * eight;
    float values[8];
    if constexpr (kEven) {
      eight_weights<kBits>(scales[i], zeros[i], codes[i], values);
      store_eight(values, out);
    } else {
      eight_weights<kBits>(m, u.groups, u.first + r, eight, codes[i], values);
      const auto left = static_cast<std::uint32_t>(m.cols) - 8 * eight;
#pragma unroll
      for (std::uint32_t j = 0; j < 8; ++j) {
        if (j < left) out[j] = from_float<T>(values[j]);
      }
    }
  }
}

// kEven: eights are whole, of one group each, and are loaded and stored at
// once.
template <class T, int kBits, bool kEven>
__global__ void __launch_bounds__(kThreads) unpack(const Unpacking u) {
  __shared__ std::uint32_t table[kTritBytes];
  if constexpr (kBits == kTrits) make_trit_table<kThreads>(table);
  const auto thread = static_cast<int>(threadIdx.x);
  const int high = kThreads / u.across;
  // The block's rows by turns, so that its stores lie close together.
  const std::int64_t begin =
      static_cast<std::int64_t>(blockIdx.x) * high * kRows + thread / u.across;
  if (begin >= u.rows) return;
  const auto eights = static_cast<std::uint32_t>((u.matrix.cols + 7) / 8);
  for (std::uint32_t eight = thread % u.across; eight < eights;
       eight += u.across) {
    unpack_eights<T, kBits, kEven>(u, begin, high, eight, table);
  }
}

// The most threads of which few have nothing to do in the last turn.
int threads_across(std::int64_t eights) {
  int across = kThreads;
  while (across > 1) {
    const std::int64_t idle = (across - eights % across) % across;
    if (8 * idle <= eights) break;
    across /= 2;
  }
  return across;
}

template <class T>
void unpack_as(const UnpackRowsArgs& a, Stream s) {
  const PackedArgs& m = a.matrix;
  const Unpacking u{
      .matrix = m,
      .groups = groups_of(m),
      .first = a.first,
      .rows = a.rows,
      .out = a.out,
      .stride = a.stride,
      .across = threads_across((m.cols + 7) / 8)};
  const unsigned blocks = blocks_for(a.rows, kThreads / u.across * kRows);
  const bool even = m.cols % 8 == 0 && u.groups.size % 8 == 0 &&
                    reinterpret_cast<std::uintptr_t>(m.codes) % 8 == 0 &&
                    aligned16({a.out, 1, a.stride, 0}, sizeof(T));
  const auto start = [&](auto bits) {
    constexpr int kBits = decltype(bits)::value;
    const auto kernel = even ? unpack<T, kBits, true> : unpack<T, kBits, false>;
    launch(kernel, blocks, kThreads, s, u);
  };
  switch (m.kind == PackedKind::kInt ? m.bits : kTrits) {
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

}  // namespace

const char* unpack_rows(const UnpackRowsArgs& a, void* stream) {
  if (a.matrix.cols >= kMostPackedCols) return kTooManyPackedCols;
  if (is_trit_code(a.matrix.kind)) return unpack_trit_rows(a, stream);
  with_type(a.dtype, [&](auto type) {
    unpack_as<decltype(type)>(a, static_cast<Stream>(stream));
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
