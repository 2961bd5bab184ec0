// SPDX-License-Identifier: Apache-2.0
// Sums over tokens, per neuron or per expert of each layer. What is added was
// summed over a micro-batch in fp32; the sums themselves are fp64. A layer's
// sums lie on the compute device while the layer is in use. Adding for
// different experts at once is safe: each owns its own slice.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "analyze/score_method.h"
#include "model/model_config.h"

namespace fettle::analyze {

class LayerSums {
 public:
  LayerSums(const model::ModelConfig& config, Unit unit);

  // Between begin and end, add() counts for `layer`. A dense layer has none.
  void begin(std::int64_t layer, at::Device device);
  void end(std::int64_t layer);
  void add(std::int64_t expert, const at::Tensor& values);  // [I], or one value
  void add_all(const at::Tensor& values);                   // [S] or [E]

  at::Tensor total(std::int64_t layer) const;  // [S] or [E] fp64 on the CPU

 private:
  Unit unit_;
  std::vector<std::vector<std::int64_t>> offsets_;  // [L][E + 1]
  std::vector<at::Tensor> totals_;
  at::Tensor current_;
  std::int64_t layer_ = -1;
};

// Tokens that chose each expert, and their mixing weights' sum: [E] fp64, on
// the view's device.
at::Tensor routed_tokens(const model::RoutingView& view);
at::Tensor routed_mass(const model::RoutingView& view);

// Expert e owns neurons [o[e], o[e+1]) of a layer's arrays.
std::vector<std::int64_t> neuron_offsets(
    const std::vector<std::int64_t>& widths);

}  // namespace fettle::analyze
