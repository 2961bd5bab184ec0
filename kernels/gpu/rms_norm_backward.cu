// SPDX-License-Identifier: Apache-2.0
// One team a row, as for the norm itself. The sums over rows for the weight's
// gradient have two steps: blocks of rows, on the way to their gradients where
// a warp has room for the sums, and then all.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/team.h"

namespace fettle::kernels::gpu {
namespace {

// Of blocks that sum the weight's gradient: as many as have room for the
// registers of V·W sums each.
template <int V>
constexpr int kSummingThreads = V == 2   ? 1024
                                : V == 4 ? 512
                                         : 384;

// A lane's part of a row and of its gradient.
template <class T, int W, int V>
struct Part {
  Pack<T, W> x[V] = {};
  Pack<T, W> dy[V] = {};
};

// Σ dy·(offset + w)·x of W columns.
template <class T, int W>
__device__ float weighted_dot(
    const Pack<T, W>& x, const Pack<T, W>& dy, const T* w, float offset) {
  float v[W], g[W], weight[W], dot = 0.0f;
  load<W>(w, weight);
  widen(x, v);
  widen(dy, g);
#pragma unroll
  for (int j = 0; j < W; ++j) dot += g[j] * (offset + weight[j]) * v[j];
  return dot;
}

template <class T, int W>
__device__ void write_gradient(
    const Pack<T, W>& x,
    const Pack<T, W>& dy,
    const T* w,
    float offset,
    float rstd,
    float pull,
    T* dx) {
  float v[W], g[W], weight[W];
  load<W>(w, weight);
  widen(x, v);
  widen(dy, g);
#pragma unroll
  for (int j = 0; j < W; ++j) {
    v[j] = g[j] * (offset + weight[j]) * rstd - v[j] * pull;
  }
  store<W>(v, dx);
}

__device__ inline float pull_of(
    const RmsNormBackwardArgs& a, float dot, float rstd) {
  return dot * rstd * rstd * rstd / static_cast<float>(a.cols);
}

// Adds a row's part of the weight's gradient.
template <class T, int W>
__device__ void add_products(
    const Pack<T, W>& x, const Pack<T, W>& dy, float rstd, float (&sums)[W]) {
  float v[W], g[W];
  widen(x, v);
  widen(dy, g);
#pragma unroll
  for (int j = 0; j < W; ++j) sums[j] += g[j] * v[j] * rstd;
}

// The gradient of row r by its team, or nothing where vectors is 0. Gives the
// lane's part and rstd, which the sums are made of.
template <class T, int W, int V>
__device__ float turn_row(
    const RmsNormBackwardArgs& a,
    std::uint32_t r,
    int vectors,
    int shift,
    Part<T, W, V>& part) {
  const int lane = threadIdx.x & ((1u << shift) - 1);
  const T* x = static_cast<const T*>(a.x.data) + offset_of(a.x, r);
  const T* dy = static_cast<const T*>(a.dy.data) + offset_of(a.dy, r);
  const T* w = static_cast<const T*>(a.w);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int i = lane + (k << shift);
    if (i >= vectors) continue;
    part.x[k] = pack_at<W>(x + i * W);
    part.dy[k] = pack_at<W>(dy + i * W);
  }
  const float rstd = vectors > 0 ? a.rstd[r] : 0.0f;
  float dot = 0.0f;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int i = lane + (k << shift);
    if (i < vectors) {
      dot += weighted_dot<T, W>(part.x[k], part.dy[k], w + i * W, a.offset);
    }
  }
  const float pull = pull_of(a, over_team<V>(dot, shift), rstd);
  T* dx = static_cast<T*>(a.dx) + r * a.cols;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int i = lane + (k << shift);
    if (i < vectors) {
      write_gradient<T, W>(
          part.x[k], part.dy[k], w + i * W, a.offset, rstd, pull, dx + i * W);
    }
  }
  return rstd;
}

template <class T, int W, int V>
__global__ void backward(const RmsNormBackwardArgs a, const int shift) {
  const std::uint32_t r =
      blockIdx.x * (blockDim.x >> shift) + (threadIdx.x >> shift);
  const int vectors = r < a.rows ? static_cast<int>(a.cols / W) : 0;
  Part<T, W, V> part;
  turn_row(a, r, vectors, shift, part);
}

// Adds up the sums of a block's teams: those of a warp, then warp by warp.
template <int W, int V>
__device__ void write_sums(
    float (&sums)[V][W], int vectors, int shift, float* partial) {
  __shared__ float of_block[V * W * kSmallestWarp];
  const int lanes = 1 << shift;
  const int lane = threadIdx.x & (lanes - 1);
  for (int mask = lanes; mask < warpSize; mask *= 2) {
#pragma unroll
    for (int k = 0; k < V; ++k) {
#pragma unroll
      for (int j = 0; j < W; ++j) {
        sums[k][j] += shuffle_xor(sums[k][j], mask);
      }
    }
  }
  const int warps = blockDim.x / warpSize;
  for (int w = 0; w < warps; ++w) {
    const bool writes = threadIdx.x - w * warpSize < 1u * lanes;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const int i = lane + (k << shift);
#pragma unroll
      for (int j = 0; j < W; ++j) {
        if (!writes || i >= vectors) continue;
        float& sum = of_block[(k * W + j) * lanes + lane];
        const float all = w == 0 ? sums[k][j] : sum + sums[k][j];
        sum = all;
        if (w == warps - 1) partial[i * W + j] = all;
      }
    }
    __syncthreads();
  }
}

// A block for each of a.blocks, whose rows its teams take by turns.
template <class T, int W, int V>
__global__ void __launch_bounds__(kSummingThreads<V>)
    backward_and_sums(const RmsNormBackwardArgs a, const int shift) {
  const std::int64_t b = blockIdx.x;
  const std::int64_t last = a.rows * (b + 1) / a.blocks;
  const std::uint32_t team = threadIdx.x >> shift;
  const int all = static_cast<int>(a.cols / W);
  float sums[V][W] = {};
  for (std::int64_t row = a.rows * b / a.blocks; row < last;
       row += blockDim.x >> shift) {
    const int vectors = row + team < last ? all : 0;
    Part<T, W, V> part;
    const auto r = static_cast<std::uint32_t>(row + team);
    const float rstd = turn_row(a, r, vectors, shift, part);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      add_products(part.x[k], part.dy[k], rstd, sums[k]);
    }
  }
  write_sums(sums, all, shift, a.partial + b * a.cols);
}

template <class T, int W>
__global__ void backward_long(const RmsNormBackwardArgs a) {
  const T* x = static_cast<const T*>(a.x.data) + offset_of(a.x, blockIdx.x);
  const T* dy = static_cast<const T*>(a.dy.data) + offset_of(a.dy, blockIdx.x);
  const T* w = static_cast<const T*>(a.w);
  T* dx = static_cast<T*>(a.dx) + blockIdx.x * a.cols;
  float dot = 0.0f;
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    dot += weighted_dot<T, W>(
        pack_at<W>(x + i), pack_at<W>(dy + i), w + i, a.offset);
  }
  dot = over_block<Sum>(dot);
  const float rstd = a.rstd[blockIdx.x];
  const float pull = pull_of(a, dot, rstd);
  for (std::int64_t i = threadIdx.x * W; i < a.cols; i += blockDim.x * W) {
    write_gradient<T, W>(
        pack_at<W>(x + i),
        pack_at<W>(dy + i),
        w + i,
        a.offset,
        rstd,
        pull,
        dx + i);
  }
}

// Goes through W columns of rows one after the other, with no division for
// each.
template <class T, int W>
struct Walk {
  const T* p;
  std::int64_t head, step, step_over_token;

  __device__ Walk(const Rows& rows, std::uint32_t r, std::int64_t col)
      : p(static_cast<const T*>(rows.data) + offset_of(rows, r) + col),
        head(r % rows.heads),
        step(rows.head_stride),
        step_over_token(
            rows.token_stride - (rows.heads - 1) * rows.head_stride) {}

  __device__ void next(const Rows& rows) {
    const bool over_token = ++head == rows.heads;
    p += over_token ? step_over_token : step;
    head = over_token ? 0 : head;
  }
};

// A thread for W columns of a block of rows.
template <class T, int W>
__global__ void weight_partial(const RmsNormBackwardArgs a) {
  const std::int64_t col = (blockIdx.y * blockDim.x + threadIdx.x) * W;
  if (col >= a.cols) return;
  const std::int64_t b = blockIdx.x;
  const std::int64_t last = a.rows * (b + 1) / a.blocks;
  std::int64_t r = a.rows * b / a.blocks;
  Walk<T, W> x(a.x, static_cast<std::uint32_t>(r), col);
  Walk<T, W> dy(a.dy, static_cast<std::uint32_t>(r), col);
  float sums[W] = {};
  // There are few threads, so each has several loads on their way.
  constexpr int kInFlight = 4;
  for (; r < last; r += kInFlight) {
    Pack<T, W> v[kInFlight] = {}, g[kInFlight] = {};
    float rstd[kInFlight] = {};
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      if (r + k >= last) continue;
      v[k] = pack_at<W>(x.p);
      g[k] = pack_at<W>(dy.p);
      rstd[k] = a.rstd[r + k];
      x.next(a.x);
      dy.next(a.dy);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) add_products(v[k], g[k], rstd[k], sums);
  }
#pragma unroll
  for (int j = 0; j < W; ++j) a.partial[b * a.cols + col + j] = sums[j];
}

__global__ void weight_total(const RmsNormBackwardArgs a) {
  const std::int64_t col = blockIdx.x * blockDim.x + threadIdx.x;
  if (col >= a.cols) return;
  float sum = 0.0f;
  // Many loads on their way at once: there are few threads.
#pragma unroll 16
  for (std::int64_t b = 0; b < a.blocks; ++b)
    sum += a.partial[b * a.cols + col];
  a.dw[col] = sum;
}

// The gradient of x alone.
template <class T, int W>
void start_backward(const RmsNormBackwardArgs& a, Stream s) {
  const std::int64_t vectors = a.cols / W;
  const bool short_enough = with_vectors(vectors, [&](auto v) {
    const int shift = v.shift(vectors);
    const int threads = std::max(1 << shift, kTeamThreads);
    const unsigned blocks = blocks_for(a.rows, threads >> shift);
    launch(backward<T, W, decltype(v)::value>, blocks, threads, s, a, shift);
  });
  if (short_enough) return;
  const auto rows = static_cast<unsigned>(a.rows);
  launch(backward_long<T, W>, rows, kMostThreads, s, a);
}

template <class T, int W>
void start(const RmsNormBackwardArgs& a, Stream s) {
  if (a.dw == nullptr) return start_backward<T, W>(a, s);
  const std::int64_t vectors = a.cols / W;
  const auto blocks = static_cast<unsigned>(a.blocks);
  const int threads = kLargestWarp;
  if (vectors <= 8 * kSmallestWarp) {
    with_vectors(vectors, [&](auto v) {
      constexpr int kV = decltype(v)::value;
      const int shift = v.shift(vectors);
      launch(
          backward_and_sums<T, W, kV>,
          blocks,
          kSummingThreads<kV>,
          s,
          a,
          shift);
    });
  } else {
    start_backward<T, W>(a, s);
    const dim3 grid(blocks, blocks_for(vectors, threads));
    launch(weight_partial<T, W>, grid, threads, s, a);
  }
  launch(weight_total, blocks_for(a.cols, threads), threads, s, a);
}

}  // namespace

const char* rms_norm_backward(const RmsNormBackwardArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kW = kWide<T>;
    const auto s = static_cast<Stream>(stream);
    if (a.cols % kW == 0 && aligned16(a.x, sizeof(T)) &&
        aligned16(a.dy, sizeof(T)) && aligned16(a.w)) {
      start<T, kW>(a, s);
    } else {
      start<T, 1>(a, s);
    }
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
