// SPDX-License-Identifier: Apache-2.0
// One block a row or token. A token's choices are summed in their order.
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

template <class T, int W>
__global__ void spread(const CombineBackwardArgs a) {
  const std::int64_t n = blockIdx.x;
  const T* dy = static_cast<const T*>(a.dy) + n * a.cols;
  for (std::int64_t k = n * a.top_k; k < (n + 1) * a.top_k; ++k) {
    const std::int64_t m = a.position[k];  // the same for the whole block
    if (m < 0) {
      if (threadIdx.x == 0) a.d_weights[k] = 0.0f;
      continue;
    }
    const T* row = static_cast<const T*>(a.rows) + m * a.cols;
    T* d_row = static_cast<T*>(a.d_rows) + m * a.cols;
    const float w = a.weights[k];
    float dot = 0.0f;
    float g[W], v[W];
    for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
      load<W>(dy + i, g);
      load<W>(row + i, v);
#pragma unroll
      for (int j = 0; j < W; ++j) {
        dot += g[j] * v[j];
        g[j] *= w;
      }
      store<W>(g, d_row + i);
    }
    dot = over_block<Sum>(dot);
    if (threadIdx.x == 0) a.d_weights[k] = dot;
  }
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
    const auto tokens = static_cast<unsigned>(a.tokens);
    if (a.cols % kWide<T> == 0 && aligned16(a.rows) && aligned16(a.dy)) {
      const int threads = threads_for(a.cols / kWide<T>);
      launch(spread<T, kWide<T>>, tokens, threads, s, a);
    } else {
      launch(spread<T, 1>, tokens, threads_for(a.cols), s, a);
    }
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
