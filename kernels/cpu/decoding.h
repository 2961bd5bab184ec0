// SPDX-License-Identifier: Apache-2.0
// What the dispatch files of decoding's ops hand to the CPU code: float32,
// checked.
#pragma once

#include <cstdint>

#include "kernels/args.h"

namespace fettle::kernels {

// y [rows, columns] = x [rows, inner] w [inner, columns]. Strides are of rows;
// `turned`: w lies as [columns, inner].
struct RowProductArgs {
  std::int64_t rows, inner, columns;
  const float* x;
  std::int64_t x_stride;
  const void* w;  // of w_type: float32 or bfloat16
  std::int64_t w_stride;
  DType w_type;
  bool turned;
  float* y;
  std::int64_t y_stride;
};

// The last `queries` of a sequence's `tokens`; the first of them is query
// `begin` of all.
struct CachedSequenceArgs {
  std::int64_t begin, queries, tokens;
  const float* key;    // [tokens, kv_heads, D]
  const float* value;  // [tokens, kv_heads, Dv]
};

struct CachedAttentionArgs {
  const CachedSequenceArgs* sequences;
  std::int64_t count;
  std::int64_t heads, kv_heads;
  std::int64_t key_size, value_size;  // D, Dv
  std::int64_t window;                // 0: none
  float scale;
  const float* q;      // [N, heads, D]
  const float* sinks;  // [heads], or null
  float* out;          // [N, heads, Dv]
};

// A sequence's cache, which takes one token more.
struct GrowingCacheArgs {
  float* key;           // [.., kv_heads, D]
  float* value;         // [.., kv_heads, Dv]
  std::int64_t tokens;  // held so far
};

struct DecodedAttentionArgs {
  const GrowingCacheArgs* sequences;  // a token each
  const float* q_in;                  // [count, heads, D]
  const float* k;                     // [count, kv_heads, D]
  const float* v;                     // [count, kv_heads, Dv]
  const float *q_norm, *k_norm;       // [D], or null
  float eps, offset;
  const float *cos, *sin;  // [count, rotated / 2], or null
  std::int64_t rotated;
  RopePairing pairing;
  float* q_out;                   // [count, heads, D], normed and rotated
  CachedAttentionArgs attention;  // of q_out; without sequences
};

namespace cpu {

void decoded_attention(const DecodedAttentionArgs& args);
void row_product(const RowProductArgs& args);
void cached_attention(const CachedAttentionArgs& args);

}  // namespace cpu
}  // namespace fettle::kernels
