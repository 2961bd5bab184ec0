// SPDX-License-Identifier: Apache-2.0
#include "model/weights/packed_layer.h"

#include <vector>

#include "core/error.h"
#include "model/weights/made_expert.h"
#include "model/weights/side_by_side.h"
#include "model/weights/weight_view.h"

namespace fettle::model {
at::Tensor StoredMatrix::unpacked(at::ScalarType type) const {
  if (dense.defined()) return dense;
  at::Tensor out =
      at::empty({packed.rows, packed.cols}, packed.codes.options().dtype(type));
  kernels::unpack_rows(packed, 0, out);
  return out;
}

std::int64_t StoredMatrix::rows() const {
  return dense.defined() ? dense.size(0) : packed.rows;
}

std::int64_t StoredMatrix::bytes() const {
  return dense.defined() ? static_cast<std::int64_t>(dense.nbytes())
                         : packed.bytes();
}

void StoredMatrix::unpack_into(const at::Tensor& out) const {
  at::Tensor into = out;
  if (dense.defined()) {
    into.copy_(dense);
  } else if (out.stride(1) == 1 && out.device() == packed.codes.device()) {
    kernels::unpack_rows(packed, 0, out);
  } else {
    into.copy_(unpacked(out.scalar_type()));
  }
}

void PackedLayer::put(const WeightId& id, StoredMatrix matrix) {
  matrices_[{id.role, id.expert}] = std::move(matrix);
}

const StoredMatrix& PackedLayer::at(Role role, std::int64_t expert) const {
  const auto found = matrices_.find({role, expert});
  FETTLE_ASSERT(found != matrices_.end());
  return found->second;
}

bool PackedLayer::has(Role role) const {
  const auto first = matrices_.lower_bound({role, -1});
  return first != matrices_.end() && first->first.first == role;
}

std::int64_t PackedLayer::bytes() const {
  std::int64_t total = 0;
  for (const auto& [key, matrix] : matrices_) total += matrix.bytes();
  return total;
}

void PackedLayer::for_each_tensor(
    const std::function<void(at::Tensor&)>& visit) {
  for (auto& [key, matrix] : matrices_) {
    kernels::PackedMatrix& m = matrix.packed;
    for (at::Tensor* tensor :
         {&matrix.dense,
          &m.codes,
          &m.scales,
          &m.zeros,
          &m.row_begin,
          &m.table}) {
      if (tensor->defined()) visit(*tensor);
    }
  }
}

LayerWeights unpacked(
    const LayerWeights& weights,
    const ModelConfig& config,
    std::int64_t layer,
    at::ScalarType type,
    bool experts_apart) {
  LayerWeights result = weights;
  result.packed = nullptr;
  const PackedLayer& packed = *weights.packed;
  const auto options = at::TensorOptions(type).device(weights.device());
  const auto is_apart = [&](Role role) {
    return experts_apart && kExpertRoles.has(role);
  };
  add_empty(result, config, layer, options, [&](Role role) {
    return packed.has(role) && !is_apart(role);
  });
  if (experts_apart && packed.has(kExpertRoles.up)) {
    result.experts.make =
        [from = weights.packed, &config, layer, options](std::int64_t e) {
          return made_expert(
              config,
              layer,
              e,
              options,
              [&](const WeightId& id, const at::Tensor& view) {
                from->at(id.role, id.expert).unpack_into(view);
              });
        };
  }
  std::vector<WeightId> ids;
  std::vector<const StoredMatrix*> matrices;
  for (const auto& [key, matrix] : packed.matrices()) {
    if (is_apart(key.first)) continue;
    ids.push_back({key.first, layer, key.second});
    matrices.push_back(&matrix);
  }
  std::vector<std::int64_t> order(ids.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<std::int64_t>(i);
  }
  const bool on_cpu = result.device().is_cpu();
  run_side_by_side(order, on_cpu, [&](std::int64_t i) {
    matrices[i]->unpack_into(weight_view(result, ids[i]));
  });
  return result;
}

}  // namespace fettle::model
