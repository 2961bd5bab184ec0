// SPDX-License-Identifier: Apache-2.0
// Calls a function on every defined tensor of a set of weights.
#pragma once

#include <ATen/ATen.h>

#include "model/weights/layer_weights.h"
#include "model/weights/weight_slot.h"

namespace fettle::model {

template <typename Visit>
void for_each_tensor(LayerWeights& weights, Visit visit) {
  for (const WeightSlot& slot : weight_slots()) {
    at::Tensor& tensor = slot.tensor(weights);
    if (tensor.defined()) visit(tensor);
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
