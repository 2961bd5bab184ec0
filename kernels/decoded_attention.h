// SPDX-License-Identifier: Apache-2.0
// What a decoded token does between its projections and its attention's output:
// norms of heads, rotation, the step into the cache, and cached_attention, in
// one parallel region. For the CPU in float32; a sequence's result doesn't
// depend on the others. Shapes, dtypes or devices that do not fit are
// InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>

#include "kernels/args.h"

namespace fettle::kernels {

// One sequence's cache, contiguous, with room for a token behind the `tokens`
// that it holds. Counting the new one is the caller's.
struct GrowingCache {
  at::Tensor key;    // [S, kv_heads, D]
  at::Tensor value;  // [S, kv_heads, Dv]
  std::int64_t tokens;
};

struct DecodedAttentionOptions {
  std::int64_t window = 0;  // as CachedAttentionOptions says
  double scale = 1.0;
  at::Tensor sinks = {};           // [heads], or undefined
  at::Tensor q_norm = {};          // [D] of each head, or undefined
  at::Tensor k_norm = {};          // [D], or undefined
  double eps = 0.0, offset = 0.0;  // as rms_norm's
  // [B, R/2] float32, as rope's, which rotates the first R dimensions; or
  // undefined.
  at::Tensor cos = {}, sin = {};
  RopePairing pairing = RopePairing::kHalf;
};

// A token of each of B sequences: q [B, heads D], k [B, kv_heads D] and v [B,
// kv_heads Dv] as projected → [B, heads Dv]. The caches take the new keys and
// values.
at::Tensor decoded_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    std::span<const GrowingCache> caches,
    const DecodedAttentionOptions& options);

}  // namespace fettle::kernels
