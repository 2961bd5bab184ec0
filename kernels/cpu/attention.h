// SPDX-License-Identifier: Apache-2.0
// What kernels/attention.cpp hands to the CPU code: float32, contiguous,
// checked. N tokens, the last of `starts`.
#pragma once

#include <cstdint>

namespace fettle::kernels {

struct AttentionArgs {
  std::int64_t sequences;
  const std::int64_t* starts;  // [sequences + 1]
  std::int64_t heads, kv_heads;
  std::int64_t key_size, value_size;  // D, Dv
  std::int64_t window;                // 0: none
  float scale;
  const float* q;  // [N, heads, D]
  const float* k;  // [N, kv_heads, D]
  const float* v;  // [N, kv_heads, Dv]
  float* out;      // [N, heads, Dv]
  float* lse;      // [N, heads]
  // For the backward pass, which reads `out` and `lse`.
  const float* d_out;  // [N, heads, Dv]
  float *dq, *dk, *dv;
};

namespace cpu {

void attention(const AttentionArgs& args);
void attention_backward(const AttentionArgs& args);

}  // namespace cpu
}  // namespace fettle::kernels
