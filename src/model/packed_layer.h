// SPDX-License-Identifier: Apache-2.0
// The matrices of a layer that are kept as the checkpoint packs them, and what
// is done with them: multiplied as they are, or unpacked into a dense layer.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "kernels/packed_matrix.h"
#include "model/experts.h"
#include "model/layer_weights.h"
#include "model/model_config.h"
#include "model/weight_table.h"

namespace fettle::model {

// One matrix [rows, cols] as stored: packed, or, where another of its MLP is,
// dense in the compute type.
struct StoredMatrix {
  kernels::PackedMatrix packed;
  at::Tensor dense;

  std::int64_t bytes() const;
  // Into `out` [rows, cols], of any strides, on any device.
  void unpack_into(const at::Tensor& out) const;
};

class PackedLayer {
 public:
  void put(const WeightId& id, StoredMatrix matrix);
  const StoredMatrix& at(Role role, std::int64_t expert = -1) const;
  bool has(Role role) const;
  std::int64_t bytes() const;
  // Of the matrices, to be looked at or replaced, always in one order.
  void for_each_tensor(const std::function<void(at::Tensor&)>& visit);

  using Key = std::pair<Role, std::int64_t>;  // and expert
  const std::map<Key, StoredMatrix>& matrices() const { return matrices_; }

 private:
  std::map<Key, StoredMatrix> matrices_;
};

// `weights` with all that is packed unpacked to `type`. Other tensors are
// shared.
LayerWeights unpacked(
    const LayerWeights& weights,
    const ModelConfig& config,
    std::int64_t layer,
    at::ScalarType type);

// y [n, rows] = x [n, cols] Wᵀ; no gradient.
at::Tensor packed_linear(const StoredMatrix& matrix, const at::Tensor& x);

// mlp() of differentiable.h; no gradient.
at::Tensor packed_mlp(
    const PackedLayer& layer, const MlpRoles& roles, const at::Tensor& x);

// experts_forward() of a layer whose experts are packed; no gradient, no tap.
at::Tensor packed_experts_forward(
    const LayerWeights& weights, const at::Tensor& x, const Mixture& mixture);

}  // namespace fettle::model
