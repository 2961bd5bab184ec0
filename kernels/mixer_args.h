// SPDX-License-Identifier: Apache-2.0
// What the ops of recurrent token mixers hand to their CPU and GPU code, as
// args.h has it for the others.
#pragma once

#include <cstdint>

#include "kernels/args.h"

namespace fettle::kernels {

inline constexpr std::int64_t kMostTaps = 8;  // W of a convolution, at most

struct ConvolutionArgs {
  DType dtype;
  bool silu;
  std::int64_t tokens, channels, taps;  // N, C, W
  std::int64_t sequences;
  const std::int64_t* starts;  // [sequences + 1]
  Rows x;                      // [N, C]
  const void* weight;          // [C, W]
  const void* bias;            // [C], or null
  void* y;                     // [N, C]
  void* state;                 // [sequences, W - 1, C], or null
};

struct ConvolutionBackwardArgs {
  ConvolutionArgs forward;  // without y and state
  Rows dy;                  // [N, C]
  void* dx;                 // [N, C]
  float* dweight;           // [W + 1, C], the bias's last
  float* partial;           // [blocks, W + 1, C], sums over blocks of tokens
  std::int64_t blocks;
};

// Tokens of a chunk of a scan.
inline constexpr std::int64_t kScanChunk = 64;
// Tokens of a sequence that a scan computes one by one, and of how large keys
// a GPU does so.
inline constexpr std::int64_t kMostSteps = 4;
inline constexpr std::int64_t kMostStepKeys = 256;

// The gated delta rule (`delta`), or the scan of Mamba-2, whose queries, keys,
// values and writes are C, B, x and dt. float32.
struct ScanArgs {
  bool delta;
  std::int64_t sequences;
  const std::int64_t* starts;  // [sequences + 1]
  std::int64_t key_heads, heads, key_size, value_size;
  std::int64_t parts;  // tasks that share a key head of a sequence
  Rows q, k;           // [N, key_heads, Dk]
  Rows v;              // [N, heads, Dv]
  const float* g;      // [N, heads], logarithm of the decay
  const float* write;  // [N, heads], beta or dt
  const float* skip;   // [heads], D of Mamba-2, or null
  float eps, scale;    // of the norms of q and k, and of q behind it
  float* state;        // [sequences, heads, Dk, Dv], or null
  float* out;          // [N, heads, Dv]
};

struct ScanBackwardArgs {
  ScanArgs forward;    // without state and out
  Rows d_out;          // [N, heads, Dv]
  float *dq, *dk;      // [parts, N, key_heads, Dk]
  float* dv;           // [N, heads, Dv]
  float *dg, *dwrite;  // [N, heads]
  float* dskip;        // [sequences, heads], or null
};

}  // namespace fettle::kernels
