// SPDX-License-Identifier: Apache-2.0
// A warp takes a row, and each of its lanes a word: their lengths, summed over
// the lanes before, say where in the row it lies, and few of its trits are not
// 0. Where codes have no fixed length all lanes read them one by one, each
// keeping its own. A block's rows share the table. x is read only where a
// weight is not 0.
#include "kernels/gpu/trit_code.h"

#include <algorithm>
#include <type_traits>

#include "kernels/gpu/row.h"
#include "kernels/trit_table.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kTritThreads = 256;
constexpr int kBlockRows = 32;  // enough to make up for loading the table

// Which scale a column has: groups are divided by shifting where they can be.
struct Groups {
  std::int64_t size;
  int shift;  // or -1

  __device__ std::int64_t of(std::int64_t col) const {
    return shift >= 0 ? col >> shift : col / size;
  }
};

struct TritItem {
  PackedArgs matrix;
  Groups groups;
  std::int64_t n;
  const void* x;
  void* y;
  std::int64_t x_stride, y_stride;
  std::int64_t first_block;  // of the launch
};

constexpr int kMostTritItems = 16;

// Travels as an argument, for which there is room for 4 KB.
struct TritBatch {
  TritItem items[kMostTritItems];
  int count;
  std::int64_t blocks, n;  // of all, and the largest
};
static_assert(sizeof(TritBatch) < 4096);

struct Word {
  std::uint64_t bits;

  __device__ int trits() const { return static_cast<int>(bits >> 56); }
  // Calls f(column, +1 or −1) for the trits before column `cols`.
  template <class F>
  __device__ void each(
      std::int64_t begin, std::int64_t cols, const F& f) const {
    const std::uint32_t plus = bits & 0xffffff;
    std::uint32_t left = plus | (bits >> 24 & 0xffffff);
    begin += static_cast<std::int64_t>(bits >> 48 & 0xff);
    while (left != 0) {
      const int j = __ffs(static_cast<int>(left)) - 1;
      left &= left - 1;
      if (begin + j >= cols) return;
      f(begin + j, (plus >> j & 1) != 0 ? 1.0f : -1.0f);
    }
  }
};

__device__ inline int exchanged(int v, int mask) {
  return __float_as_int(shuffle_xor(__int_as_float(v), mask));
}

// The sum over the lanes before this one; `all` is that over the warp.
__device__ inline int sum_before(int v, int& all) {
  int before = 0;
  all = v;
  for (int mask = 1; mask < warpSize; mask *= 2) {
    const int other = exchanged(all, mask);
    if ((threadIdx.x & mask) != 0) before += other;
    all += other;
  }
  return before;
}

// Collects what lanes find out about their row.
struct Ending {
  bool damaged = false, sound = false;

  // A word from column `col` on whose code ends at bit `bit` of the row's.
  __device__ void see(
      int trits,
      std::int64_t col,
      std::int64_t bit,
      std::int64_t cols,
      std::int64_t bytes) {
    if (col >= cols) return;
    if (trits == 0 || bit > 8 * bytes) {
      damaged = true;
    } else if (col + trits >= cols) {
      sound = (bit + 7) / 8 == bytes;
    }
  }
  // The same for every lane.
  __device__ bool row_is_sound() const {
    const float ended = over_warp<Max>(sound ? 1.0f : 0.0f);
    const float broken = over_warp<Max>(damaged ? 1.0f : 0.0f);
    return ended > 0.0f && broken == 0.0f;
  }
};

// Bits of a row, loaded as whole aligned words, of which any that holds a byte
// of the row is memory of the same allocation.
struct RowBits {
  const std::uint32_t* base;
  std::int64_t skipped, words;

  __device__ RowBits(const std::uint8_t* p, std::int64_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    base = reinterpret_cast<const std::uint32_t*>(address & ~std::uintptr_t{3});
    skipped = static_cast<std::int64_t>(address & 3);
    words = (skipped + bytes + 3) / 4;
  }
  __device__ std::uint64_t word(std::int64_t i) const {
    return i < words ? base[i] : 0;
  }
  // 64 bits, zeros behind the row's last word.
  __device__ std::uint64_t from(std::int64_t bit) const {
    const std::int64_t at = 8 * skipped + bit;
    const std::int64_t i = at / 32;
    const int shift = static_cast<int>(at % 32);
    const std::uint64_t low = word(i) | word(i + 1) << 32;
    return shift == 0 ? low : low >> shift | word(i + 2) << (64 - shift);
  }
};

// Both call f(column, word) with the words of a row, a lane one at a time, and
// return whether the row is sound, the same to every lane.
struct FixedCode {
  static constexpr int kEntries = kTritCodeWords;

  template <class F>
  static __device__ bool row(
      const std::uint64_t* table,
      const std::uint8_t* codes,
      std::int64_t bytes,
      std::int64_t cols,
      const F& f) {
    const std::int64_t count = 8 * bytes / kTritCodeBits;
    const int lane = threadIdx.x % warpSize;
    Ending ending;
    std::int64_t col = 0;
    for (std::int64_t i = lane; i - lane < count && col < cols; i += warpSize) {
      Word word{0};
      const std::int64_t bit = i * kTritCodeBits;
      if (i < count) {
        const std::uint8_t* p = codes + bit / 8;
        const unsigned code = (p[0] | p[1] << 8) >> bit % 8;
        word.bits = table[code & (kTritCodeValues - 1)];
      }
      int all;
      const std::int64_t at = col + sum_before(word.trits(), all);
      ending.see(word.trits(), at, bit + kTritCodeBits, cols, bytes);
      if (at < cols) f(at, word);
      col += all;
    }
    return ending.row_is_sound();
  }
};

struct HuffmanCode {
  static constexpr int kEntries = kTritHuffmanBytes / kTritWordBytes;
  static constexpr int kAtOnce = 4;

  template <class F>
  static __device__ bool row(
      const std::uint64_t* table,
      const std::uint8_t* codes,
      std::int64_t bytes,
      std::int64_t cols,
      const F& f) {
    const auto* found =
        reinterpret_cast<const std::uint16_t*>(table + kTritHuffmanWords);
    const RowBits bits(codes, bytes);
    const int lane = threadIdx.x % warpSize;
    Ending ending;
    std::int64_t col = 0, bit = 0;
    while (bit < 8 * bytes && col < cols) {
      unsigned number = 0;
      std::int64_t end = 0;
      for (int i = 0; i < warpSize; i += kAtOnce) {
        std::uint64_t next = bits.from(bit);
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          const unsigned entry = found[next & (kTritCodeValues - 1)];
          const unsigned length = entry & 0xf;  // at most 10
          next >>= length;
          bit += length;
          if (i + j == lane) {
            number = entry >> 8;
            end = bit;
          }
        }
      }
      const Word word{table[number]};
      int all;
      const std::int64_t at = col + sum_before(word.trits(), all);
      ending.see(word.trits(), at, end, cols, bytes);
      if (at < cols) f(at, word);
      if (all == 0) break;
      col += all;
    }
    return ending.row_is_sound();
  }
};

template <class Code, class F>
__device__ bool each_word(
    const PackedArgs& m,
    std::int64_t row,
    const std::uint64_t* table,
    const F& f) {
  const std::int64_t begin = m.row_begin[row], end = m.row_begin[row + 1];
  if (begin < 0 || begin > end || end > m.codes_bytes) return false;
  if (m.cols == 0) return begin == end;
  return Code::row(table, m.codes + begin, end - begin, m.cols, f);
}

template <class Code>
__device__ void load_table(const PackedArgs& m, std::uint64_t* table) {
  const auto* from = reinterpret_cast<const std::uint64_t*>(m.table);
  for (int i = threadIdx.x; i < Code::kEntries; i += kTritThreads) {
    table[i] = from[i];
  }
  __syncthreads();
}

__device__ inline float trit_scale(
    const PackedArgs& m, std::int64_t row, std::int64_t group) {
  return to_float(Bf16{m.scales[row * m.groups + group]});
}

// Rows of a block are dealt out to its warps, more of 32 than of 64.
template <class F>
__device__ void each_block_row(
    std::int64_t block, std::int64_t rows, const F& f) {
  const int warp = threadIdx.x / warpSize, warps = kTritThreads / warpSize;
  for (int i = warp; i < kBlockRows; i += warps) {
    const std::int64_t row = block * kBlockRows + i;
    if (row < rows) f(row);
  }
}

// Zero times its scale first, as the CPU has it, then what is not 0.
template <class T, class Code>
__global__ void unpack_trits(const UnpackRowsArgs a, const Groups groups) {
  __shared__ std::uint64_t table[Code::kEntries];
  const PackedArgs& m = a.matrix;
  const int lane = threadIdx.x % warpSize;
  each_block_row(blockIdx.x, a.rows, [&](std::int64_t r) {
    T* out = static_cast<T*>(a.out) + r * a.stride;
    for (std::int64_t c = lane; c < m.cols; c += warpSize) {
      out[c] = from_float<T>(0.0f * trit_scale(m, a.first + r, groups.of(c)));
    }
  });
  load_table<Code>(m, table);  // its barrier is for what was written, too
  each_block_row(blockIdx.x, a.rows, [&](std::int64_t r) {
    T* out = static_cast<T*>(a.out) + r * a.stride;
    const std::int64_t row = a.first + r;
    const bool sound =
        each_word<Code>(m, row, table, [&](std::int64_t col, Word word) {
          word.each(col, m.cols, [&](std::int64_t c, float sign) {
            const float scale = trit_scale(m, row, groups.of(c));
            out[c] = from_float<T>(sign * scale);
          });
        });
    if (sound) return;
    __threadfence_block();
    for (std::int64_t c = lane; c < m.cols; c += warpSize) {
      out[c] = from_float<T>(NAN);
    }
  });
}

template <class T, int N, class Code>
__device__ inline void multiply_trit_row(
    const TritItem& item,
    std::int64_t row,
    std::int64_t first,
    const std::uint64_t* table) {
  const PackedArgs& m = item.matrix;
  const T* x = static_cast<const T*>(item.x) + first * item.x_stride;
  float sums[N] = {};
  const bool sound =
      each_word<Code>(m, row, table, [&](std::int64_t col, Word word) {
        word.each(col, m.cols, [&](std::int64_t c, float sign) {
          const float w = sign * trit_scale(m, row, item.groups.of(c));
#pragma unroll
          for (int r = 0; r < N; ++r) {
            if (first + r < item.n) {
              sums[r] += w * to_float(x[r * item.x_stride + c]);
            }
          }
        });
      });
#pragma unroll
  for (int r = 0; r < N; ++r) {
    const float sum = over_warp<Sum>(sums[r]);
    if (threadIdx.x % warpSize == 0 && first + r < item.n) {
      T* y = static_cast<T*>(item.y);
      y[(first + r) * item.y_stride + row] = from_float<T>(sound ? sum : NAN);
    }
  }
}

template <class T, int N, class Code>
__global__ void multiply_trits(const TritBatch batch) {
  __shared__ std::uint64_t table[Code::kEntries];
  int i = 0;
  while (i + 1 < batch.count && blockIdx.x >= batch.items[i + 1].first_block) {
    ++i;
  }
  const TritItem& item = batch.items[i];
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * N;
  if (first >= item.n) return;
  load_table<Code>(item.matrix, table);
  each_block_row(
      blockIdx.x - item.first_block, item.matrix.rows, [&](std::int64_t row) {
        multiply_trit_row<T, N, Code>(item, row, first, table);
      });
}

// A group longer than a row is as long as one.
Groups groups_of(const PackedArgs& m) {
  const std::int64_t size =
      std::max<std::int64_t>(1, std::min(m.group, m.cols));
  int shift = 0;
  while ((std::int64_t{1} << shift) < size) ++shift;
  return {size, std::int64_t{1} << shift == size ? shift : -1};
}

template <class T, class Code>
void run(const TritBatch& batch, Stream s) {
  const auto start = [&](auto count) {
    constexpr int N = decltype(count)::value;
    const dim3 grid(
        static_cast<unsigned>(batch.blocks), blocks_for(batch.n, N));
    launch(multiply_trits<T, N, Code>, grid, kTritThreads, s, batch);
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

template <class T, class Code>
void run_kind(const PackedProductsArgs& a, PackedKind kind, Stream s) {
  TritBatch batch{};
  const auto flush = [&] {
    if (batch.count > 0) run<T, Code>(batch, s);
    batch = {};
  };
  for (std::int64_t i = 0; i < a.count; ++i) {
    const PackedProductArgs& p = a.products[i];
    if (p.matrix.kind != kind || p.n == 0 || p.matrix.rows == 0) continue;
    batch.items[batch.count++] = {
        .matrix = p.matrix,
        .groups = groups_of(p.matrix),
        .n = p.n,
        .x = p.x,
        .y = p.y,
        .x_stride = p.x_stride,
        .y_stride = p.y_stride,
        .first_block = batch.blocks};
    batch.blocks += blocks_for(p.matrix.rows, kBlockRows);
    batch.n = std::max(batch.n, p.n);
    if (batch.count == kMostTritItems) flush();
  }
  flush();
}

}  // namespace

const char* unpack_trit_rows(const UnpackRowsArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const unsigned blocks = blocks_for(a.rows, kBlockRows);
    const Groups groups = groups_of(a.matrix);
    if (a.matrix.kind == PackedKind::kTernaryWords) {
      launch(unpack_trits<T, FixedCode>, blocks, kTritThreads, s, a, groups);
    } else {
      launch(unpack_trits<T, HuffmanCode>, blocks, kTritThreads, s, a, groups);
    }
  });
  return launch_result();
}

const char* trit_products(const PackedProductsArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    run_kind<T, FixedCode>(a, PackedKind::kTernaryWords, s);
    run_kind<T, HuffmanCode>(a, PackedKind::kTernaryHuffman, s);
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
