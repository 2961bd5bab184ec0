// SPDX-License-Identifier: Apache-2.0
// Attention whose keys and values come from one compressed latent of a token
// (MLA; DeepSeek-V2, section 2.1). The cache holds latents: L + R values of a
// token in place of N (D + Dv). Decoding multiplies the query and the mixed
// latents by the two halves of kv_b_proj, so that no key or value of an earlier
// token is computed again.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/kv_cache.h"
#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

struct Latents {
  at::Tensor query;     // [N, heads, D], its last R dimensions rotated
  at::Tensor latent;    // [N, L]
  at::Tensor key_rope;  // [N, 1, R], rotated; shared by all heads
};

// The latents of x [N, H].
Latents latents_of(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

struct LatentHeads {
  at::Tensor key;    // [N, heads, D]
  at::Tensor value;  // [N, heads, Dv]
};

// Keys and values of every head.
LatentHeads expanded(
    const LayerContext& context,
    const LayerWeights& weights,
    const Latents& latents);

// Adds the latents of a sequence's tokens to its cache; their queries are not
// looked at.
void keep_latents(KvCache& cache, const Latents& latents);

// All that a cache holds, without queries.
Latents cached_latents(const LayerContext& context, const KvCache& cache);

// [1, heads Dv]: what one token, whose latents are in the cache already, sees
// of all that the cache holds. query: [1, heads, D].
at::Tensor attend_to_latents(
    const LayerContext& context,
    const LayerWeights& weights,
    const KvCache& cache,
    const at::Tensor& query);

}  // namespace fettle::model
