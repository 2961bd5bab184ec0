// SPDX-License-Identifier: Apache-2.0
// One block a row or token; a warp for a choice's gradient. A token's choices
// are summed in their order.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

struct Bytes16 {
  std::uint32_t words[4];
};

template <class Unit>
__global__ void gather(const GatherRowsArgs a) {
  const std::int64_t units = a.row_bytes / sizeof(Unit);
  const Unit* from =
      static_cast<const Unit*>(a.x) + a.index[blockIdx.x] * units;
  Unit* to = static_cast<Unit*>(a.out) + blockIdx.x * units;
  for (std::int64_t i = threadIdx.x; i < units; i += blockDim.x)
    to[i] = from[i];
}

template <class T, int W>
__global__ void sum_choices(const CombineArgs a) {
  const std::int64_t n = blockIdx.x;
  const T* rows = static_cast<const T*>(a.rows);
  const std::int64_t* position = a.position + n * a.top_k;
  T* y = static_cast<T*>(a.y) + n * a.cols;
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    float sum[W] = {};
    for (std::int64_t k = 0; k < a.top_k; ++k) {
      const std::int64_t m = position[k];
      if (m < 0) continue;
      const float w = a.weights == nullptr ? 1.0f : a.weights[n * a.top_k + k];
      float v[W];
      load<W>(rows + m * a.cols + i, v);
#pragma unroll
      for (int j = 0; j < W; ++j) sum[j] += w * v[j];
    }
    store<W>(sum, y + i);
  }
}

constexpr int kSpreadThreads = 256;
constexpr int kInFlight = 4;

// dy·w to the row of a choice, and their product, by a warp's lanes: kInFlight
// loads each before the first store, which the compiler takes for one to dy.
template <class T, int W>
__device__ float spread_row(
    const T* dy, const T* row, T* d_row, float w, int lane, int vectors) {
  float dot = 0.0f;
  for (int first = lane; first < vectors; first += kInFlight * kSmallestWarp) {
    Pack<T, W> g[kInFlight] = {}, v[kInFlight] = {};
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int i = first + k * kSmallestWarp;
      if (i >= vectors) continue;
      v[k] = pack_at<W>(row + i * W);
      g[k] = pack_at<W>(dy + i * W);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int i = first + k * kSmallestWarp;
      if (i >= vectors) continue;
      float p[W], q[W];
      widen(g[k], p);
      widen(v[k], q);
#pragma unroll
      for (int j = 0; j < W; ++j) {
        dot += p[j] * q[j];
        p[j] *= w;
      }
      store<W>(p, d_row + i * W);
    }
  }
  return dot;
}

// 32 lanes for each choice of each token, so that a token's stand in one block
// and dy comes from memory once.
template <class T, int W>
__global__ void spread(const CombineBackwardArgs a) {
  const int lane = threadIdx.x % kSmallestWarp;
  const std::int64_t choice =
      static_cast<std::int64_t>(blockIdx.x) * (kSpreadThreads / kSmallestWarp) +
      threadIdx.x / kSmallestWarp;
  const bool there = choice < a.tokens * a.top_k;
  const std::int64_t m = there ? a.position[choice] : -1;
  float dot = 0.0f;
  if (m >= 0) {
    const std::int64_t n = choice / a.top_k;
    dot = spread_row<T, W>(
        static_cast<const T*>(a.dy) + n * a.cols,
        static_cast<const T*>(a.rows) + m * a.cols,
        static_cast<T*>(a.d_rows) + m * a.cols,
        a.weights[choice],
        lane,
        static_cast<int>(a.cols / W));
  }
  dot = over_lanes<Sum>(dot, kSmallestWarp);
  if (there && lane == 0) a.d_weights[choice] = dot;
}

}  // namespace

const char* gather_rows(const GatherRowsArgs& a, void* stream) {
  const auto s = static_cast<Stream>(stream);
  const auto rows = static_cast<unsigned>(a.rows);
  if (a.row_bytes % 16 == 0 && aligned16(a.x)) {
    launch(gather<Bytes16>, rows, threads_for(a.row_bytes / 16), s, a);
  } else {
    launch(gather<char>, rows, threads_for(a.row_bytes), s, a);
  }
  return launch_result();
}

const char* combine(const CombineArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const auto tokens = static_cast<unsigned>(a.tokens);
    if (a.cols % kWide<T> == 0 && aligned16(a.rows)) {
      const int threads = threads_for(a.cols / kWide<T>);
      launch(sum_choices<T, kWide<T>>, tokens, threads, s, a);
    } else {
      launch(sum_choices<T, 1>, tokens, threads_for(a.cols), s, a);
    }
  });
  return launch_result();
}

const char* combine_backward(const CombineBackwardArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const unsigned blocks =
        blocks_for(a.tokens * a.top_k * kSmallestWarp, kSpreadThreads);
    if (a.cols % kWide<T> == 0 && aligned16(a.rows) && aligned16(a.dy)) {
      launch(spread<T, kWide<T>>, blocks, kSpreadThreads, s, a);
    } else {
      launch(spread<T, 1>, blocks, kSpreadThreads, s, a);
    }
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
