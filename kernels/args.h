// SPDX-License-Identifier: Apache-2.0
// What an op hands to its CPU and GPU code: plain structs of sizes and raw
// pointers, so that neither side reads a torch header. The dispatch file of an
// op has checked everything in them; nothing is checked again behind it.
// Tensors are contiguous unless given as Rows.
#pragma once

#include <cstdint>

namespace fettle::kernels {

enum class DType : std::int32_t { kFloat32, kBFloat16, kFloat16 };

// What a gated MLP makes of gate and up: act(gate)·up with silu(z) = z·σ(z) or
// gelu with tanh, written without the tanh: z·σ(2u), u = √(2/π)·(z + 0.044715
// z³); or, with both clamped, z·σ(1.702 z)·(up + 1), z = min(gate, 7) and up
// within ±7 (gpt-oss). Or an MLP without a gate: max(up, 0)² (Nemotron).
enum class Activation : std::int32_t {
  kSilu,
  kGeluTanh,
  kClampedSwiglu,
  kRelu2
};

// What a neuron is computed from: gate and up, or up alone.
constexpr std::int64_t inputs_of(Activation activation) {
  return activation == Activation::kRelu2 ? 1 : 2;
}

inline constexpr float kSwigluSlope = 1.702f;
inline constexpr float kSwigluLimit = 7.0f;

// Which two dimensions of a head rotate together: i and i + rotated/2, or 2i
// and 2i + 1.
enum class RopePairing : std::int32_t { kHalf, kInterleaved };

// No router chooses more experts than this for one token.
inline constexpr std::int64_t kMaxTopK = 64;

// Rows of contiguous values, `heads` of them for a token. Strides count values.
struct Rows {
  void* data = nullptr;
  std::int64_t heads = 1;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};

struct RmsNormArgs {
  DType dtype;
  std::int64_t rows, cols;
  Rows x;         // [rows, cols]
  const void* w;  // [cols]
  void* y;        // [rows, cols]
  float* rstd;    // [rows]
  float eps;
  float offset;  // added to w; unless it is 0, y is rounded once
};

struct RmsNormBackwardArgs {
  DType dtype;
  std::int64_t rows, cols;
  Rows dy, x;         // [rows, cols]
  const void* w;      // [cols]
  const float* rstd;  // [rows]
  void* dx;           // [rows, cols]
  float* dw;          // [cols], or null when not wanted
  float* partial;     // [blocks, cols], sums over one block of rows each
  std::int64_t blocks;
  float offset;  // added to w
};

struct SwigluArgs {
  DType dtype;
  Activation activation;
  std::int64_t rows, width;
  const void* gate_up;  // [rows, P·width], P inputs of a neuron
  void* h;              // [rows, width]
};

struct SwigluBackwardArgs {
  DType dtype;
  Activation activation;
  std::int64_t rows, width;
  const void* gate_up;  // [rows, P·width]
  const void* dh;       // [rows, width]
  void* d_gate_up;      // [rows, P·width]
};

struct GatherRowsArgs {
  std::int64_t rows;  // M
  std::int64_t row_bytes;
  const void* x;              // [N, row_bytes]
  const std::int64_t* index;  // [M], values in [0, N)
  void* out;                  // [M, row_bytes]
};

struct CombineArgs {
  DType dtype;
  std::int64_t tokens, top_k, cols;
  const void* rows;              // [M, cols]
  const std::int64_t* position;  // [tokens, top_k], -1 or in [0, M)
  const float* weights;          // [tokens, top_k], or null for ones
  void* y;                       // [tokens, cols]
};

struct CombineBackwardArgs {
  DType dtype;
  std::int64_t tokens, top_k, cols;
  const void* dy;                // [tokens, cols]
  const void* rows;              // [M, cols]
  const std::int64_t* position;  // [tokens, top_k]
  const float* weights;          // [tokens, top_k]
  void* d_rows;                  // [M, cols]
  float* d_weights;              // [tokens, top_k]
};

struct CrossEntropyArgs {
  DType dtype;
  std::int64_t rows, vocab;
  void* logits;                 // [rows, vocab], overwritten with gradients
  const std::int64_t* targets;  // [rows], ignored when negative
  float* nll;                   // [rows]
  bool gradient;                // whether to overwrite the logits
  float scale;                  // of the gradient
};

struct RopeArgs {
  DType dtype;
  RopePairing pairing;
  std::int64_t tokens, head_size;
  std::int64_t start, rotated;  // the rotated dimensions of a head
  Rows x;                       // [tokens, x.heads, head_size]
  const float* cos;             // [tokens, rotated/2]
  const float* sin;             // [tokens, rotated/2]
  void* y;                      // [tokens, x.heads, head_size]
  float sign;                   // +1, or -1 to turn back
};

// The row that `r` counts, token by token and head by head in a token.
#if defined(__CUDACC__) || defined(__HIPCC__) || defined(__HIP__)
__host__ __device__
#endif
    inline std::int64_t
    row_offset(const Rows& rows, std::int64_t r) {
  return r / rows.heads * rows.token_stride + r % rows.heads * rows.head_stride;
}

}  // namespace fettle::kernels
