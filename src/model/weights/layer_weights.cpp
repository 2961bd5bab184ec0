// SPDX-License-Identifier: Apache-2.0
#include "model/weights/layer_weights.h"

#include "model/weights/packed_layer.h"
#include "model/weights/weight_visit.h"

namespace fettle::model {

std::int64_t LayerWeights::bytes() const {
  std::int64_t total = 0;
  LayerWeights copy = *this;  // shares the tensors
  for_each_tensor(copy, [&](const at::Tensor& tensor) {
    total += static_cast<std::int64_t>(tensor.nbytes());
  });
  return packed ? total + packed->bytes() : total;
}

at::Device LayerWeights::device() const {
  return (input_norm.defined() ? input_norm : post_attention_norm).device();
}

}  // namespace fettle::model
