// SPDX-License-Identifier: Apache-2.0
// Attention whose softmax has one more logit a head, without a value, where
// libtorch's attention serves, which knows none. Source: gpt-oss
// (transformers 5.17, models/gpt_oss).
#pragma once

#include <ATen/ATen.h>

namespace fettle::model {

// query [B, heads, T, D], key [B, kv_heads, S, D], value [B, kv_heads, S, Dv].
struct AttentionInputs {
  at::Tensor query, key, value;
};

// The same with a token in front whose value is 0 and whose key gives every
// query of head h the score sinks[h], once scores are multiplied by `scale`: T,
// S and D grow, Dv stays. Its own query's row means nothing. sinks: [heads].
AttentionInputs with_sink_token(
    const AttentionInputs& inputs, const at::Tensor& sinks, double scale);

// The attention of one query a head to all keys, T being 1: [B, heads, 1, Dv].
at::Tensor attend_with_sinks(
    const AttentionInputs& inputs, const at::Tensor& sinks, double scale);

}  // namespace fettle::model
