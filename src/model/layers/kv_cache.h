// SPDX-License-Identifier: Apache-2.0
// Keys and values of a sequence's earlier tokens, for decoding.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace fettle::model {

struct KvCache {
  // [capacity, kv_heads, D]; under MLA [capacity, 1, L + R], latents and what
  // is rotated of the keys
  at::Tensor key;
  at::Tensor value;  // [capacity, kv_heads, Dv]; under MLA [capacity, 1, 0]
  std::int64_t length = 0;   // tokens held
  std::int64_t reserve = 0;  // tokens that there will be; 0: not known

  // Adds n tokens' keys [n, kv_heads, D] and values [n, kv_heads, Dv].
  void append(const at::Tensor& new_key, const at::Tensor& new_value);
};

}  // namespace fettle::model
