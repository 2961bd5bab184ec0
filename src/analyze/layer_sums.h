// SPDX-License-Identifier: Apache-2.0
// One value per neuron, per expert or per layer, reduced over tokens. What is
// added was summed over a micro-batch in fp32; the sums themselves are fp64. A
// layer's sums lie on the compute device while the layer is in use. Adding for
// different experts at once is safe: each owns its own slice.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "analyze/score_method.h"
#include "model/family/model_config.h"

namespace fettle::analyze {

class LayerSums {
 public:
  struct Kind {
    Unit unit = Unit::kNeuron;
    Reduction reduction = Reduction::kSum;
  };
  LayerSums(const model::ModelConfig& config, Kind kind);

  // Between begin and end, add() counts for `layer`, or takes the larger value
  // where the reduction is kMax. A dense layer has none.
  void begin(std::int64_t layer, at::Device device);
  void end(std::int64_t layer);
  void add(std::int64_t expert, const at::Tensor& values);  // [I], [I^2], or 1
  void add_all(const at::Tensor& values);  // [S], [E], or one value

  // Shows what was added since begin; nothing where nothing is added.
  void visit(const sweep::SumVisitor& visit);

  // Replaces a layer's values: what isn't summed, or was summed earlier.
  void set(std::int64_t layer, const at::Tensor& values);
  bool is_set(std::int64_t layer) const { return set_[layer]; }

  // [S], [E], [1] or [P] fp64 on the CPU.
  artifact::Sum total(std::int64_t layer) const;

 private:
  bool is_summed() const {
    return kind_.reduction == Reduction::kSum ||
           kind_.reduction == Reduction::kMax;
  }
  void reduce(at::Tensor into, const at::Tensor& values) const;

  Kind kind_;
  std::vector<std::vector<std::int64_t>> offsets_;  // [L][E + 1]
  std::vector<at::Tensor> totals_;
  std::vector<bool> set_;
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

// [E] to [S]: each expert's value for each of its neurons.
at::Tensor per_neuron(
    const at::Tensor& values, const std::vector<std::int64_t>& widths);

}  // namespace fettle::analyze
