// SPDX-License-Identifier: Apache-2.0
// The matrices of a layer that are kept as the checkpoint packs them, to be
// multiplied as they are (packed_products.h) or unpacked into a dense layer.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "kernels/packed_matrix.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// One matrix [rows, cols] as stored: packed, or, where another of its MLP is,
// dense in the compute type.
struct StoredMatrix {
  kernels::PackedMatrix packed;
  at::Tensor dense;

  std::int64_t bytes() const;
  std::int64_t rows() const;
  // The matrix in `type`, or `dense` as it is.
  at::Tensor unpacked(at::ScalarType type) const;
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

// `weights` with all that is packed unpacked to `type`, or with experts apart:
// each is then unpacked when it is needed. Other tensors are shared. `config`
// must outlive a layer with experts apart.
LayerWeights unpacked(
    const LayerWeights& weights,
    const ModelConfig& config,
    std::int64_t layer,
    at::ScalarType type,
    bool experts_apart = false);

}  // namespace fettle::model
