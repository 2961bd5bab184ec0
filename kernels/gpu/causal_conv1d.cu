// SPDX-License-Identifier: Apache-2.0
// A thread has a channel and goes through a strip of tokens, with the inputs
// that a token sees in registers.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kStrip = 32;  // tokens of a thread in the forward pass

// The sequence of a token, and its ends.
struct Sequence {
  std::int64_t index, first, end;

  __device__ Sequence(const ConvolutionArgs& a, std::int64_t token) {
    std::int64_t low = 0, high = a.sequences;
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      if (a.starts[middle] <= token) {
        low = middle;
      } else {
        high = middle;
      }
    }
    index = low;
    first = a.starts[low];
    end = a.starts[low + 1];
  }

  // Goes to the sequence of a later token. Whether it is another one.
  __device__ bool go_to(const ConvolutionArgs& a, std::int64_t token) {
    if (token < end) return false;
    while (token >= end) end = a.starts[++index + 1];
    first = a.starts[index];
    return true;
  }
};

// The weights of a channel: the last W of R.
template <class T, int R>
struct Weights {
  float w[R], bias;
  int skipped;  // of R

  __device__ Weights(const ConvolutionArgs& a, std::int64_t c)
      : bias(
            a.bias == nullptr ? 0.0f
                              : to_float(static_cast<const T*>(a.bias)[c])),
        skipped(R - static_cast<int>(a.taps)) {
    const T* weight = static_cast<const T*>(a.weight) + c * a.taps;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      w[r] = r < skipped ? 0.0f : to_float(weight[r - skipped]);
    }
  }
  __device__ float product(const float (&x)[R]) const {
    float z = bias;
#pragma unroll
    for (int r = 0; r < R; ++r) z += r < skipped ? 0.0f : w[r] * x[r];
    return z;
  }
  // The gradient of an input from those of the tokens from its own on, `left`
  // of which belong to its sequence.
  __device__ float turned(const float (&dz)[R], std::int64_t left) const {
    float dx = 0.0f;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (r < R - skipped && r < left) dx += w[R - 1 - r] * dz[r];
    }
    return dx;
  }
};

template <class T>
__device__ float input(
    const ConvolutionArgs& a, std::int64_t token, std::int64_t c) {
  return to_float(
      static_cast<const T*>(a.x.data)[token * a.x.token_stride + c]);
}

// What token n's channel sees before it: x[r] is the input R - 1 - r earlier.
template <class T, int R>
__device__ void load_window(
    const ConvolutionArgs& a,
    const Sequence& at,
    std::int64_t n,
    std::int64_t c,
    float (&x)[R]) {
  const std::int64_t rows = a.taps - 1;
#pragma unroll
  for (int r = 0; r < R - 1; ++r) {
    const std::int64_t from = n - (R - 1 - r);
    const std::int64_t before = at.first - from;
    x[r] = 0.0f;
    if (before <= 0) {
      x[r] = input<T>(a, from, c);
    } else if (a.state != nullptr && before <= rows) {
      const std::int64_t row = at.index * rows + rows - before;
      x[r] = to_float(static_cast<const T*>(a.state)[row * a.channels + c]);
    }
  }
}

template <int R>
__device__ void shift(float (&x)[R]) {
#pragma unroll
  for (int r = 0; r + 1 < R; ++r) x[r] = x[r + 1];
}

__device__ inline float sigmoid_of(float z) { return 1.0f / (1.0f + expf(-z)); }

template <class T, int R>
__global__ void forward(const ConvolutionArgs a) {
  const std::int64_t c = blockIdx.y * blockDim.x + threadIdx.x;
  if (c >= a.channels) return;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kStrip;
  const std::int64_t end =
      begin + kStrip < a.tokens ? begin + kStrip : a.tokens;
  float x[R];
  const Weights<T, R> weights(a, c);
  Sequence at(a, begin);
  load_window<T, R>(a, at, begin, c, x);
  for (std::int64_t n = begin; n < end; ++n) {
    if (at.go_to(a, n)) load_window<T, R>(a, at, n, c, x);
    x[R - 1] = input<T>(a, n, c);
    const float z = weights.product(x);
    const float y = a.silu ? z * sigmoid_of(z) : z;
    static_cast<T*>(a.y)[n * a.channels + c] = from_float<T>(y);
    shift(x);
  }
}

// Leaves the last W - 1 inputs of each sequence in its state.
template <class T>
__global__ void keep_last(const ConvolutionArgs a) {
  const std::int64_t c = blockIdx.y * blockDim.x + threadIdx.x;
  if (c >= a.channels) return;
  const std::int64_t s = blockIdx.x, rows = a.taps - 1;
  const std::int64_t first = a.starts[s], end = a.starts[s + 1];
  T* state = static_cast<T*>(a.state) + s * rows * a.channels + c;
  const T* x = static_cast<const T*>(a.x.data) + c;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t from = end - rows + r;
    state[r * a.channels] = from >= first
                                ? x[from * a.x.token_stride]
                                : state[(r + end - first) * a.channels];
  }
}

// A block has a.blocks' share of tokens. It sees R - 1 tokens more, whose
// gradients reach its own inputs, and leaves their weights' sums to the next.
template <class T, int R>
__global__ void backward(const ConvolutionBackwardArgs b) {
  const ConvolutionArgs& a = b.forward;
  const std::int64_t c = blockIdx.y * blockDim.x + threadIdx.x;
  if (c >= a.channels) return;
  const std::int64_t begin = a.tokens * blockIdx.x / b.blocks;
  const std::int64_t end = a.tokens * (blockIdx.x + 1) / b.blocks;
  float x[R], dz[R] = {}, sums[R + 1] = {};
  const Weights<T, R> weights(a, c);
  Sequence at(a, begin), of(a, begin);
  load_window<T, R>(a, at, begin, c, x);
  for (std::int64_t n = begin; n < end + R - 1; ++n) {
    dz[R - 1] = 0.0f;
    if (n < a.tokens) {
      if (at.go_to(a, n)) load_window<T, R>(a, at, n, c, x);
      x[R - 1] = input<T>(a, n, c);
      float d =
          to_float(static_cast<const T*>(b.dy.data)[n * b.dy.token_stride + c]);
      if (a.silu) {
        const float z = weights.product(x), s = sigmoid_of(z);
        d *= s + s * z * (1.0f - s);
      }
      dz[R - 1] = d;
      if (n < end) {
#pragma unroll
        for (int r = 0; r < R; ++r) sums[r] += d * x[r];
        sums[R] += d;
      }
      shift(x);
    }
    const std::int64_t m = n - (R - 1);
    if (m >= begin) {
      of.go_to(a, m);
      static_cast<T*>(b.dx)[m * a.channels + c] =
          from_float<T>(weights.turned(dz, of.end - m));
    }
    shift(dz);
  }
  const int skipped = weights.skipped;
  float* partial = b.partial + blockIdx.x * (a.taps + 1) * a.channels + c;
#pragma unroll
  for (int r = 0; r <= R; ++r) {
    if (r >= skipped) partial[(r - skipped) * a.channels] = sums[r];
  }
}

__global__ void sum_blocks(const ConvolutionBackwardArgs b) {
  const std::int64_t size = (b.forward.taps + 1) * b.forward.channels;
  const std::int64_t i =
      static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  float sum = 0.0f;
  for (std::int64_t k = 0; k < b.blocks; ++k) sum += b.partial[k * size + i];
  b.dweight[i] = sum;
}

// Calls f(type, R) with room for the convolution's taps.
template <class F>
void with_taps(const ConvolutionArgs& a, const F& f) {
  with_type(a.dtype, [&](auto type) {
    if (a.taps <= 4) {
      f(type, std::integral_constant<int, 4>());
    } else {
      f(type, std::integral_constant<int, kMostTaps>());
    }
  });
}

}  // namespace

const char* causal_conv1d(const ConvolutionArgs& a, void* stream) {
  with_taps(a, [&](auto type, auto taps) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const unsigned columns = blocks_for(a.channels, kThreads);
    const dim3 grid(blocks_for(a.tokens, kStrip), columns);
    launch(forward<T, decltype(taps)::value>, grid, kThreads, s, a);
    if (a.state == nullptr) return;
    const dim3 all(static_cast<unsigned>(a.sequences), columns);
    launch(keep_last<T>, all, kThreads, s, a);
  });
  return launch_result();
}

const char* causal_conv1d_backward(
    const ConvolutionBackwardArgs& b, void* stream) {
  const ConvolutionArgs& a = b.forward;
  with_taps(a, [&](auto type, auto taps) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const dim3 grid(
        static_cast<unsigned>(b.blocks), blocks_for(a.channels, kThreads));
    launch(backward<T, decltype(taps)::value>, grid, kThreads, s, b);
    const std::int64_t sums = (a.taps + 1) * a.channels;
    launch(sum_blocks, blocks_for(sums, kThreads), kThreads, s, b);
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
