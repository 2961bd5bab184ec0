// SPDX-License-Identifier: Apache-2.0
// Calls a function on every defined tensor of a set of weights.
#pragma once

#include <ATen/ATen.h>

#include "model/layer_weights.h"

namespace fettle::model {

template <typename Visit>
void for_each_tensor(LayerWeights& w, Visit visit) {
  AttentionWeights& a = w.attention;
  for (at::Tensor* tensor : {&w.input_norm,     &w.post_attention_norm,
                             &a.q_proj,         &a.q_bias,
                             &a.k_proj,         &a.k_bias,
                             &a.v_proj,         &a.v_bias,
                             &a.o_proj,         &a.o_bias,
                             &a.q_norm,         &a.k_norm,
                             &a.q_a_proj,       &a.q_a_bias,
                             &a.q_a_norm,       &a.q_b_proj,
                             &a.kv_a_proj,      &a.kv_a_bias,
                             &a.kv_a_norm,      &a.kv_b_proj,
                             &w.dense.gate_up,  &w.dense.down,
                             &w.router,         &w.router_correction,
                             &w.router_bias,    &w.experts.gate_up,
                             &w.experts.down,   &w.experts.constant,
                             &w.shared.gate_up, &w.shared.down,
                             &w.shared_router}) {
    if (tensor->defined()) visit(*tensor);
  }
}

template <typename Visit>
void for_each_tensor(GlobalWeights& w, Visit visit) {
  const bool tied = w.lm_head.is_same(w.embed_tokens);
  visit(w.embed_tokens);
  visit(w.final_norm);
  if (tied) {
    w.lm_head = w.embed_tokens;
  } else {
    visit(w.lm_head);
  }
}

}  // namespace fettle::model
