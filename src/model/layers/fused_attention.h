// SPDX-License-Identifier: Apache-2.0
// libtorch's fused attention, whose gradients are the same bits every time.
#pragma once

#include <ATen/ATen.h>

#include <optional>

namespace fettle::model {

struct FusedAttentionOptions {
  std::optional<at::Tensor> mask = {};  // [T, S], added to the scores
  bool causal = false;
  double scale = 1.0;
  bool grouped = false;  // fewer kv heads than heads
};

// query [B, heads, T, D], key and value [B, kv_heads, S, D] → [B, heads, T, D].
// On a card libtorch adds up gradients as blocks happen to finish unless told
// not to: told so here alone, since other operators pay for it (the gradients
// of all weights of a layer took 1.6 times as long on an H200).
at::Tensor fused_attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const FusedAttentionOptions& options);

}  // namespace fettle::model
