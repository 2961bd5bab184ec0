// SPDX-License-Identifier: Apache-2.0
#include "model/packed_layer.h"

#include <vector>

#include "core/error.h"
#include "kernels/expert_rows.h"
#include "kernels/swiglu.h"
#include "model/dispatch.h"
#include "model/expert_loop.h"
#include "model/weight_view.h"

namespace fettle::model {
namespace {

// More rows of x than this are cheaper to multiply by the unpacked matrix.
constexpr std::int64_t kFewRows = 8;

at::Tensor dense_of(const StoredMatrix& matrix, at::ScalarType type) {
  if (matrix.dense.defined()) return matrix.dense;
  at::Tensor dense = at::empty(
      {matrix.packed.rows, matrix.packed.cols},
      matrix.packed.codes.options().dtype(type));
  kernels::unpack_rows(matrix.packed, 0, dense);
  return dense;
}

// Products that need not wait for each other: those of packed matrices with
// few rows go through the kernel together.
class Products {
 public:
  // y [n, rows] = x [n, cols] Wᵀ. Matrices must stay until run().
  void add(
      const StoredMatrix& matrix, const at::Tensor& x, const at::Tensor& y) {
    if (matrix.packed.defined() && x.size(0) <= kFewRows) {
      packed_.push_back({&matrix.packed, x, y});
    } else {
      at::Tensor into = y;
      into.copy_(at::mm(x, dense_of(matrix, x.scalar_type()).t()));
    }
  }
  void run() {
    if (!packed_.empty()) kernels::packed_products(packed_);
    packed_.clear();
  }

 private:
  std::vector<kernels::PackedProduct> packed_;
};

void add_gate_up(
    Products& products,
    const PackedLayer& layer,
    const MlpRoles& roles,
    std::int64_t expert,
    const at::Tensor& x,
    const at::Tensor& gate_up) {
  const std::int64_t width = gate_up.size(1) / 2;
  products.add(layer.at(roles.gate, expert), x, gate_up.narrow(1, 0, width));
  products.add(layer.at(roles.up, expert), x, gate_up.narrow(1, width, width));
}

}  // namespace

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
    into.copy_(dense_of(*this, out.scalar_type()));
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
    at::ScalarType type) {
  LayerWeights result = weights;
  result.packed = nullptr;
  const PackedLayer& packed = *weights.packed;
  add_empty(
      result,
      config,
      layer,
      weights.input_norm.options().dtype(type),
      [&](Role role) { return packed.has(role); });
  std::vector<WeightId> ids;
  std::vector<const StoredMatrix*> matrices;
  for (const auto& [key, matrix] : packed.matrices()) {
    ids.push_back({key.first, layer, key.second});
    matrices.push_back(&matrix);
  }
  std::vector<std::int64_t> order(ids.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<std::int64_t>(i);
  }
  const bool on_cpu = result.input_norm.is_cpu();
  run_side_by_side(order, on_cpu, [&](std::int64_t i) {
    matrices[i]->unpack_into(weight_view(result, ids[i]));
  });
  return result;
}

at::Tensor packed_linear(const StoredMatrix& matrix, const at::Tensor& x) {
  const std::int64_t rows =
      matrix.dense.defined() ? matrix.dense.size(0) : matrix.packed.rows;
  at::Tensor y = at::empty({x.size(0), rows}, x.options());
  Products products;
  products.add(matrix, x.contiguous(), y);
  products.run();
  return y;
}

at::Tensor packed_mlp(
    const PackedLayer& layer, const MlpRoles& roles, const at::Tensor& x) {
  const StoredMatrix& up = layer.at(roles.up);
  const std::int64_t width =
      up.dense.defined() ? up.dense.size(0) : up.packed.rows;
  const at::Tensor gate_up = at::empty({x.size(0), 2 * width}, x.options());
  Products products;
  add_gate_up(products, layer, roles, -1, x, gate_up);
  products.run();
  return packed_linear(layer.at(roles.down), kernels::swiglu(gate_up));
}

at::Tensor packed_experts_forward(
    const LayerWeights& weights, const at::Tensor& x, const Mixture& mixture) {
  const ExpertBank& bank = weights.experts;
  const PackedLayer& layer = *weights.packed;
  const Dispatch plan = dispatch(mixture.selected, bank.size());
  const at::Tensor rows = kernels::gather_rows(x, plan.token);
  const at::Tensor ys = at::empty_like(rows);
  const auto rows_of = [&](const at::Tensor& all, std::int64_t e) {
    return all.narrow(0, plan.starts[e], plan.count(e));
  };
  std::vector<std::int64_t> chosen;
  std::vector<at::Tensor> gate_up(bank.size());
  Products products;
  for (std::int64_t e = 0; e < bank.size(); ++e) {
    if (plan.count(e) == 0) continue;
    if (bank.width(e) == 0) {
      rows_of(ys, e).zero_();
      continue;
    }
    chosen.push_back(e);
    gate_up[e] = at::empty({plan.count(e), 2 * bank.width(e)}, x.options());
    add_gate_up(products, layer, kExpertRoles, e, rows_of(rows, e), gate_up[e]);
  }
  products.run();
  for (const std::int64_t e : chosen) {
    products.add(
        layer.at(kExpertRoles.down, e),
        kernels::swiglu(gate_up[e]),
        rows_of(ys, e));
  }
  products.run();
  if (bank.constant.defined()) {
    for (std::int64_t e = 0; e < bank.size(); ++e) {
      if (plan.count(e) > 0) rows_of(ys, e).add_(bank.constant[e]);
    }
  }
  return kernels::combine(ys, plan.position, mixture.weights);
}

}  // namespace fettle::model
