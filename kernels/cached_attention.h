// SPDX-License-Identifier: Apache-2.0
// Attention of the last tokens of some sequences to all that their caches hold,
// for decoding on the CPU in float32. Keys and values are read where they lie,
// and a sequence's result doesn't depend on the others. Shapes, dtypes or
// devices that do not fit are InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace fettle::kernels {

// One sequence's tokens, contiguous: the first `tokens` of S.
struct CachedTokens {
  at::Tensor key;    // [S, kv_heads, D]
  at::Tensor value;  // [S, kv_heads, Dv]
  std::int64_t tokens;
};

struct CachedAttentionOptions {
  // [B + 1]: which queries are each sequence's; they are its last tokens.
  std::vector<std::int64_t> starts;
  // A token sees itself and the window - 1 tokens before it; 0: all before.
  std::int64_t window = 0;
  double scale = 1.0;     // of the products of queries and keys
  at::Tensor sinks = {};  // [heads] one more logit each, without a value
};

// q [N, heads, D] contiguous, B caches → [N, heads, Dv]. Query head h reads key
// head h / (heads / kv_heads).
at::Tensor cached_attention(
    const at::Tensor& q,
    std::span<const CachedTokens> caches,
    const CachedAttentionOptions& options);

}  // namespace fettle::kernels
