// SPDX-License-Identifier: Apache-2.0
// One thread for W pairs of up to kHeads heads of a token, which turn by the
// same angles, or for W dimensions that are only copied. Where 16 bytes cannot
// be loaded at once, W is 1.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;

// Turns W pairs, the values of which are a and then b in memory.
template <int W, RopePairing kPairing>
__device__ void turn(
    float (&a)[W],
    float (&b)[W],
    const float (&cos)[W],
    const float (&sin)[W]) {
  if constexpr (kPairing == RopePairing::kHalf) {
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float u = a[j], v = b[j];
      a[j] = u * cos[j] - v * sin[j];
      b[j] = v * cos[j] + u * sin[j];
    }
  } else {
    const auto at = [&](int i) -> float& { return i < W ? a[i] : b[i - W]; };
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float u = at(2 * j), v = at(2 * j + 1);
      at(2 * j) = u * cos[j] - v * sin[j];
      at(2 * j + 1) = v * cos[j] + u * sin[j];
    }
  }
}

// A table's angles: as many as a thread has pairs, 16 bytes at a time.
template <int W>
__device__ void load_table(const float* table, float (&out)[W]) {
  constexpr int kLoaded = W < 4 ? W : 4;
#pragma unroll
  for (int j = 0; j < W; j += kLoaded) {
    float part[kLoaded];
    load<kLoaded>(table + j, part);
#pragma unroll
    for (int k = 0; k < kLoaded; ++k) out[j + k] = part[k];
  }
}

// What a thread has to do: its token, the first of its heads and the distance
// to the next, and its place in a head.
struct Item {
  std::int64_t token;
  int head, step, i;
};

template <class T, int W>
__device__ void copy(const RopeArgs& a, const Item& item, int outside) {
  const std::int64_t d = outside < a.start ? outside : outside + a.rotated;
  const T* x =
      static_cast<const T*>(a.x.data) + item.token * a.x.token_stride + d;
  T* y = static_cast<T*>(a.y) + item.token * a.x.heads * a.head_size + d;
  Pack<T, W> v[kHeads] = {};
#pragma unroll
  for (int k = 0; k < kHeads; ++k) {
    const int h = item.head + k * item.step;
    if (h < a.x.heads) v[k] = pack_at<W>(x + h * a.x.head_stride);
  }
#pragma unroll
  for (int k = 0; k < kHeads; ++k) {
    const int h = item.head + k * item.step;
    if (h < a.x.heads) put(v[k], y + h * a.head_size);
  }
}

template <class T, int W, RopePairing kPairing>
__device__ void turn_heads(const RopeArgs& a, const Item& item) {
  const std::int64_t half = a.rotated / 2;
  constexpr bool kHalves = kPairing == RopePairing::kHalf;
  const std::int64_t first = a.start + (kHalves ? item.i : 2 * item.i);
  const std::int64_t second = first + (kHalves ? half : W);
  const T* x = static_cast<const T*>(a.x.data) + item.token * a.x.token_stride;
  T* y = static_cast<T*>(a.y) + item.token * a.x.heads * a.head_size;
  Pack<T, W> u[kHeads] = {}, v[kHeads] = {};
#pragma unroll
  for (int k = 0; k < kHeads; ++k) {
    const int h = item.head + k * item.step;
    if (h >= a.x.heads) continue;
    u[k] = pack_at<W>(x + h * a.x.head_stride + first);
    v[k] = pack_at<W>(x + h * a.x.head_stride + second);
  }
  float cos[W], sin[W];
  load_table(a.cos + item.token * half + item.i, cos);
  load_table(a.sin + item.token * half + item.i, sin);
#pragma unroll
  for (int j = 0; j < W; ++j) sin[j] *= a.sign;
#pragma unroll
  for (int k = 0; k < kHeads; ++k) {
    const int h = item.head + k * item.step;
    if (h >= a.x.heads) continue;
    float p[W], q[W];
    widen(u[k], p);
    widen(v[k], q);
    turn<W, kPairing>(p, q, cos, sin);
    store<W>(p, y + h * a.head_size + first);
    store<W>(q, y + h * a.head_size + second);
  }
}

// Threads for a token: those of a head's vectors, for each of `groups` heads.
__host__ __device__ inline std::int64_t vectors_of_head(
    const RopeArgs& a, int w) {
  return (a.head_size - a.rotated / 2) / w;
}

__host__ __device__ inline std::int64_t groups_of(const RopeArgs& a) {
  return (a.x.heads + kHeads - 1) / kHeads;
}

template <class T, int W, RopePairing kPairing>
__global__ void rotate(const RopeArgs a) {
  const std::int64_t thread =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t vectors = vectors_of_head(a, W);
  const std::int64_t groups = groups_of(a);
  const std::int64_t of_head = thread / vectors;
  const std::int64_t token = of_head / groups;
  if (token >= a.tokens) return;
  // Neighbouring threads have neighbouring heads, so that they load what lies
  // side by side.
  const Item item{
      token,
      static_cast<int>(of_head - token * groups),
      static_cast<int>(groups),
      static_cast<int>(thread - of_head * vectors) * W};
  const auto half = static_cast<int>(a.rotated / 2);
  if (item.i < half) {
    turn_heads<T, W, kPairing>(a, item);
  } else {
    copy<T, W>(a, item, item.i - half);
  }
}

template <class T, int W>
void start(const RopeArgs& a, Stream s) {
  const unsigned blocks =
      blocks_for(a.tokens * groups_of(a) * vectors_of_head(a, W), kThreads);
  if (a.pairing == RopePairing::kHalf) {
    launch(rotate<T, W, RopePairing::kHalf>, blocks, kThreads, s, a);
  } else {
    launch(rotate<T, W, RopePairing::kInterleaved>, blocks, kThreads, s, a);
  }
}

}  // namespace

const char* rope(const RopeArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kW = kWide<T>;
    const auto s = static_cast<Stream>(stream);
    const bool whole =
        a.head_size % kW == 0 && a.start % kW == 0 && a.rotated / 2 % kW == 0;
    if (whole && aligned16(a.x, sizeof(T)) && aligned16(a.cos) &&
        aligned16(a.sin)) {
      start<T, kW>(a, s);
    } else {
      start<T, 1>(a, s);
    }
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
