// SPDX-License-Identifier: Apache-2.0
// One block a row; the gradient of the weight in two steps, a thread a column.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

template <class T, int W>
__global__ void forward(const RmsNormArgs a) {
  const std::int64_t r = blockIdx.x;
  const T* x = static_cast<const T*>(a.x.data) + row_offset(a.x, r);
  const T* w = static_cast<const T*>(a.w);
  T* y = static_cast<T*>(a.y) + r * a.cols;
  float squares = 0.0f;
  float v[W], weight[W];
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    load<W>(x + i, v);
#pragma unroll
    for (int j = 0; j < W; ++j) squares += v[j] * v[j];
  }
  squares = over_block<Sum>(squares);
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(a.cols) + a.eps);
  if (threadIdx.x == 0) a.rstd[r] = rstd;
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    load<W>(x + i, v);
    load<W>(w + i, weight);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      v[j] = to_float(from_float<T>(v[j] * rstd)) * weight[j];
    }
    store<W>(v, y + i);
  }
}

template <class T, int W>
__global__ void backward(const RmsNormBackwardArgs a) {
  const std::int64_t r = blockIdx.x;
  const T* x = static_cast<const T*>(a.x.data) + row_offset(a.x, r);
  const T* dy = static_cast<const T*>(a.dy.data) + row_offset(a.dy, r);
  const T* w = static_cast<const T*>(a.w);
  T* dx = static_cast<T*>(a.dx) + r * a.cols;
  float dot = 0.0f;
  float v[W], g[W], weight[W];
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    load<W>(x + i, v);
    load<W>(dy + i, g);
    load<W>(w + i, weight);
#pragma unroll
    for (int j = 0; j < W; ++j) dot += g[j] * weight[j] * v[j];
  }
  dot = over_block<Sum>(dot);
  const float rstd = a.rstd[r];
  const float pull = dot * rstd * rstd * rstd / static_cast<float>(a.cols);
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    load<W>(x + i, v);
    load<W>(dy + i, g);
    load<W>(w + i, weight);
#pragma unroll
    for (int j = 0; j < W; ++j) v[j] = g[j] * weight[j] * rstd - v[j] * pull;
    store<W>(v, dx + i);
  }
}

template <class T>
__global__ void weight_partial(const RmsNormBackwardArgs a) {
  const std::int64_t col = blockIdx.y * blockDim.x + threadIdx.x;
  if (col >= a.cols) return;
  const std::int64_t block = blockIdx.x;
  const std::int64_t last = a.rows * (block + 1) / a.blocks;
  float sum = 0.0f;
  for (std::int64_t r = a.rows * block / a.blocks; r < last; ++r) {
    const T* x = static_cast<const T*>(a.x.data) + row_offset(a.x, r);
    const T* dy = static_cast<const T*>(a.dy.data) + row_offset(a.dy, r);
    sum += to_float(dy[col]) * to_float(x[col]) * a.rstd[r];
  }
  a.partial[block * a.cols + col] = sum;
}

__global__ void weight_total(const RmsNormBackwardArgs a) {
  const std::int64_t col = blockIdx.x * blockDim.x + threadIdx.x;
  if (col >= a.cols) return;
  float sum = 0.0f;
  for (std::int64_t b = 0; b < a.blocks; ++b)
    sum += a.partial[b * a.cols + col];
  a.dw[col] = sum;
}

// Rows shorter than this leave threads idle when loaded 16 bytes at a time.
template <class T>
bool worth_wide(std::int64_t cols) {
  return cols % kWide<T> == 0 && cols >= kLargestWarp * kWide<T>;
}

}  // namespace

const char* rms_norm(const RmsNormArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const auto rows = static_cast<unsigned>(a.rows);
    if (worth_wide<T>(a.cols) && aligned16(a.x, sizeof(T)) && aligned16(a.w)) {
      const int threads = threads_for(a.cols / kWide<T>);
      launch(forward<T, kWide<T>>, rows, threads, s, a);
    } else {
      launch(forward<T, 1>, rows, threads_for(a.cols), s, a);
    }
  });
  return launch_result();
}

const char* rms_norm_backward(const RmsNormBackwardArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const auto rows = static_cast<unsigned>(a.rows);
    if (worth_wide<T>(a.cols) && aligned16(a.x, sizeof(T)) &&
        aligned16(a.dy, sizeof(T)) && aligned16(a.w)) {
      const int threads = threads_for(a.cols / kWide<T>);
      launch(backward<T, kWide<T>>, rows, threads, s, a);
    } else {
      launch(backward<T, 1>, rows, threads_for(a.cols), s, a);
    }
    if (a.dw == nullptr) return;
    const int threads = kLargestWarp;
    const unsigned tiles = blocks_for(a.cols, threads);
    const dim3 grid(static_cast<unsigned>(a.blocks), tiles);
    launch(weight_partial<T>, grid, threads, s, a);
    launch(weight_total, tiles, threads, s, a);
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
