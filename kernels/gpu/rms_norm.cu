// SPDX-License-Identifier: Apache-2.0
// One team a row. Only rows too long for a team's registers are read twice, by
// a block.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/team.h"

namespace fettle::kernels::gpu {
namespace {

__device__ inline float rstd_of(const RmsNormArgs& a, float squares) {
  return 1.0f / sqrtf(squares / static_cast<float>(a.cols) + a.eps);
}

// y = w · (x·rstd rounded to T), or (offset + w) · x·rstd
template <class T, int W>
__device__ void write_scaled(
    const Pack<T, W>& x, float rstd, const Pack<T, W>& w, float offset, T* y) {
  float v[W], weight[W];
  widen(w, weight);
  widen(x, v);
#pragma unroll
  for (int j = 0; j < W; ++j) v[j] *= rstd;
  if (offset == 0.0f) widen(narrow<T>(v), v);
#pragma unroll
  for (int j = 0; j < W; ++j) v[j] *= offset + weight[j];
  store<W>(v, y);
}

template <class T, int W, int V>
__global__ void forward(const RmsNormArgs a, const int shift) {
  const int lane = threadIdx.x & ((1u << shift) - 1);
  const std::uint32_t r =
      blockIdx.x * (blockDim.x >> shift) + (threadIdx.x >> shift);
  // A team without a row still takes part in the exchanges of its warp.
  const int vectors = r < a.rows ? static_cast<int>(a.cols / W) : 0;
  const T* from = static_cast<const T*>(a.x.data) + offset_of(a.x, r);
  const T* weights = static_cast<const T*>(a.w);
  Pack<T, W> x[V] = {}, w[V] = {};
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int i = lane + (k << shift);
    if (i < vectors) x[k] = pack_at<W>(from + i * W);
  }
  // Before the first store, which the compiler takes for one to them.
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int i = lane + (k << shift);
    if (i < vectors) w[k] = pack_at<W>(weights + i * W);
  }
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    float v[W];
    widen(x[k], v);
#pragma unroll
    for (int j = 0; j < W; ++j) squares += v[j] * v[j];
  }
  const float rstd = rstd_of(a, over_team<V>(squares, shift));
  T* y = static_cast<T*>(a.y) + r * a.cols;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int i = lane + (k << shift);
    if (i < vectors) write_scaled<T, W>(x[k], rstd, w[k], a.offset, y + i * W);
  }
  if (lane == 0 && vectors > 0) a.rstd[r] = rstd;
}

template <class T, int W>
__global__ void forward_long(const RmsNormArgs a) {
  const std::int64_t r = blockIdx.x;
  const T* x = static_cast<const T*>(a.x.data) + offset_of(a.x, blockIdx.x);
  const T* w = static_cast<const T*>(a.w);
  T* y = static_cast<T*>(a.y) + r * a.cols;
  float squares = 0.0f;
  float v[W];
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    load<W>(x + i, v);
#pragma unroll
    for (int j = 0; j < W; ++j) squares += v[j] * v[j];
  }
  const float rstd = rstd_of(a, over_block<Sum>(squares));
  if (threadIdx.x == 0) a.rstd[r] = rstd;
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    write_scaled<T, W>(
        pack_at<W>(x + i), rstd, pack_at<W>(w + i), a.offset, y + i);
  }
}

template <class T, int W>
void start(const RmsNormArgs& a, Stream s) {
  const std::int64_t vectors = a.cols / W;
  const bool short_enough = with_vectors(vectors, [&](auto v) {
    const int shift = v.shift(vectors);
    const int threads = std::max(1 << shift, kTeamThreads);
    const unsigned blocks = blocks_for(a.rows, threads >> shift);
    launch(forward<T, W, decltype(v)::value>, blocks, threads, s, a, shift);
  });
  if (short_enough) return;
  const auto rows = static_cast<unsigned>(a.rows);
  launch(forward_long<T, W>, rows, kMostThreads, s, a);
}

}  // namespace

const char* rms_norm(const RmsNormArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kW = kWide<T>;
    const auto s = static_cast<Stream>(stream);
    if (a.cols % kW == 0 && aligned16(a.x, sizeof(T)) && aligned16(a.w)) {
      start<T, kW>(a, s);
    } else {
      start<T, 1>(a, s);
    }
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
