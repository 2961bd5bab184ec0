// SPDX-License-Identifier: Apache-2.0
#include "model/weights/made_expert.h"

#include "model/weights/weight_view.h"

namespace fettle::model {
namespace {

// [rows, cols] in the thread's memory, or in new memory where that is in use or
// too small.
at::Tensor matrix_in(
    at::Tensor& memory,
    std::int64_t rows,
    std::int64_t cols,
    at::TensorOptions options) {
  const std::int64_t bytes =
      rows * cols * static_cast<std::int64_t>(options.dtype().itemsize());
  const bool free = memory.defined() && memory.storage().use_count() == 1;
  if (!free || static_cast<std::int64_t>(memory.nbytes()) < bytes) {
    memory.reset();
    memory = at::empty({bytes}, at::kByte);
  }
  return memory.narrow(0, 0, bytes)
      .view(c10::typeMetaToScalarType(options.dtype()))
      .view({rows, cols});
}

}  // namespace

Mlp made_expert(
    const ModelConfig& config,
    std::int64_t layer,
    std::int64_t expert,
    at::TensorOptions options,
    const FillMatrix& fill) {
  thread_local at::Tensor gate_up_memory;
  thread_local at::Tensor down_memory;
  const LayerConfig& shape = config.layers.at(static_cast<std::size_t>(layer));
  const std::int64_t width =
      shape.expert_widths.at(static_cast<std::size_t>(expert));
  LayerWeights alone;
  ExpertBank& bank = alone.experts;
  bank.offsets = {0, width};
  bank.activation = config.activation;
  const std::int64_t hidden = config.hidden_size;
  bank.gate_up =
      matrix_in(gate_up_memory, bank.inputs() * width, hidden, options);
  bank.down = matrix_in(down_memory, width, hidden, options);
  for (const Role role : kExpertRoles.all()) {
    if (role == kExpertRoles.gate && bank.inputs() == 1) continue;
    fill({role, layer, expert}, weight_view(alone, {role, layer, 0}));
  }
  return {bank.gate_up, bank.down, bank.activation};
}

}  // namespace fettle::model
