// SPDX-License-Identifier: Apache-2.0
// One thread for W neighbouring neurons of a row.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kThreads = 256;

__device__ float sigmoid(float v) {
  const float e = __expf(-fabsf(v));
  // Its divisor is in [1, 2], far from where __fdividef isn't a division.
  return __fdividef(v < 0.0f ? e : 1.0f, 1.0f + e);
}

// Activations with a gate are z·σ(inner(z)) times a factor. Without a clamp, z
// is the gate, and up the factor.
struct Plain {
  static __device__ float gate(float g) { return g; }
  static __device__ float factor(float up) { return up; }
  static __device__ float gate_gradient(float, float d) { return d; }
  static __device__ float up_gradient(float, float d) { return d; }
};

struct Silu : Plain {
  static __device__ float inner(float z) { return z; }
  static __device__ float slope(float) { return 1.0f; }
};

struct GeluTanh : Plain {
  static __device__ float inner(float z) {
    return 1.5957691216057308f * z * (1.0f + 0.044715f * z * z);
  }
  static __device__ float slope(float z) {
    return 1.5957691216057308f * (1.0f + 3 * 0.044715f * z * z);
  }
};

struct ClampedSwiglu {
  static __device__ float inner(float z) { return kSwigluSlope * z; }
  static __device__ float slope(float) { return kSwigluSlope; }
  // Comparisons and not fminf, which loses a NaN.
  static __device__ float gate(float g) {
    return g > kSwigluLimit ? kSwigluLimit : g;
  }
  static __device__ float factor(float up) {
    const float below = gate(up);
    return (below < -kSwigluLimit ? -kSwigluLimit : below) + 1.0f;
  }
  static __device__ float gate_gradient(float g, float d) {
    return g <= kSwigluLimit ? d : 0.0f;
  }
  static __device__ float up_gradient(float up, float d) {
    return fabsf(up) <= kSwigluLimit ? d : 0.0f;
  }
};

template <class T, int W, class Act>
__global__ void forward(const SwigluArgs a) {
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t vectors = a.width / W;
  if (item >= a.rows * vectors) return;
  const std::int64_t r = item / vectors;
  const std::int64_t i = item % vectors * W;
  const T* gate = static_cast<const T*>(a.gate_up) + r * 2 * a.width + i;
  float z[W], up[W];
  load<W>(gate, z);
  load<W>(gate + a.width, up);
#pragma unroll
  for (int j = 0; j < W; ++j) {
    z[j] = Act::gate(z[j]);
    z[j] *= sigmoid(Act::inner(z[j])) * Act::factor(up[j]);
  }
  store<W>(z, static_cast<T*>(a.h) + r * a.width + i);
}

template <class T, int W, class Act>
__global__ void backward(const SwigluBackwardArgs a) {
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t vectors = a.width / W;
  if (item >= a.rows * vectors) return;
  const std::int64_t r = item / vectors;
  const std::int64_t i = item % vectors * W;
  const std::int64_t at = r * 2 * a.width + i;
  const T* gate = static_cast<const T*>(a.gate_up) + at;
  T* d_gate = static_cast<T*>(a.d_gate_up) + at;
  float z[W], up[W], g[W];
  load<W>(gate, z);
  load<W>(gate + a.width, up);
  load<W>(static_cast<const T*>(a.dh) + r * a.width + i, g);
#pragma unroll
  for (int j = 0; j < W; ++j) {
    const float clamped = Act::gate(z[j]);
    const float s = sigmoid(Act::inner(clamped));
    const float act = clamped * s;
    const float d_act = s + act * (1.0f - s) * Act::slope(clamped);
    z[j] = Act::gate_gradient(z[j], g[j] * Act::factor(up[j]) * d_act);
    up[j] = Act::up_gradient(up[j], g[j] * act);
  }
  store<W>(z, d_gate);
  store<W>(up, d_gate + a.width);
}

// A comparison and not fmaxf, which loses a NaN.
__device__ float positive(float v) { return v < 0.0f ? 0.0f : v; }

// Rows lie without gaps, so that all values are one row.
template <class T, int W>
__global__ void forward_relu2(const SwigluArgs a) {
  const std::int64_t i =
      (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * W;
  if (i >= a.rows * a.width) return;
  float v[W];
  load<W>(static_cast<const T*>(a.gate_up) + i, v);
#pragma unroll
  for (int j = 0; j < W; ++j) v[j] = positive(v[j]) * positive(v[j]);
  store<W>(v, static_cast<T*>(a.h) + i);
}

template <class T, int W>
__global__ void backward_relu2(const SwigluBackwardArgs a) {
  const std::int64_t i =
      (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * W;
  if (i >= a.rows * a.width) return;
  float v[W], g[W];
  load<W>(static_cast<const T*>(a.gate_up) + i, v);
  load<W>(static_cast<const T*>(a.dh) + i, g);
#pragma unroll
  for (int j = 0; j < W; ++j) v[j] = g[j] * 2.0f * positive(v[j]);
  store<W>(v, static_cast<T*>(a.d_gate_up) + i);
}

template <class T, int W>
void start(const SwigluArgs& a, Stream s) {
  const unsigned blocks = blocks_for(a.rows * (a.width / W), kThreads);
  switch (a.activation) {
    case Activation::kSilu:
      return launch(forward<T, W, Silu>, blocks, kThreads, s, a);
    case Activation::kGeluTanh:
      return launch(forward<T, W, GeluTanh>, blocks, kThreads, s, a);
    case Activation::kClampedSwiglu:
      return launch(forward<T, W, ClampedSwiglu>, blocks, kThreads, s, a);
    case Activation::kRelu2:
      return launch(forward_relu2<T, W>, blocks, kThreads, s, a);
  }
}

template <class T, int W>
void start(const SwigluBackwardArgs& a, Stream s) {
  const unsigned blocks = blocks_for(a.rows * (a.width / W), kThreads);
  switch (a.activation) {
    case Activation::kSilu:
      return launch(backward<T, W, Silu>, blocks, kThreads, s, a);
    case Activation::kGeluTanh:
      return launch(backward<T, W, GeluTanh>, blocks, kThreads, s, a);
    case Activation::kClampedSwiglu:
      return launch(backward<T, W, ClampedSwiglu>, blocks, kThreads, s, a);
    case Activation::kRelu2:
      return launch(backward_relu2<T, W>, blocks, kThreads, s, a);
  }
}

template <class Args>
const char* run(const Args& a, bool aligned, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    if (aligned && a.width % kWide<T> == 0) {
      start<T, kWide<T>>(a, s);
    } else {
      start<T, 1>(a, s);
    }
  });
  return launch_result();
}

}  // namespace

const char* swiglu(const SwigluArgs& a, void* stream) {
  return run(a, aligned16(a.gate_up), stream);
}

const char* swiglu_backward(const SwigluBackwardArgs& a, void* stream) {
  return run(a, aligned16(a.gate_up) && aligned16(a.dh), stream);
}

}  // namespace fettle::kernels::gpu
