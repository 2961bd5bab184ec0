// SPDX-License-Identifier: Apache-2.0
#include "model/layers/packed_products.h"

#include <vector>

#include "kernels/expert_rows.h"
#include "kernels/rounded_products.h"
#include "kernels/swiglu.h"
#include "model/layers/expert_dispatch.h"

namespace fettle::model {
namespace {

// More rows of x than this are cheaper to multiply by the unpacked matrix.
constexpr std::int64_t kFewRows = 8;

// Products that need not wait for each other: those of packed matrices with
// few rows go through the kernel together.
class Products {
 public:
  explicit Products(Activations activations) : activations_(activations) {}

  // y [n, rows] = x [n, cols] Wᵀ. Matrices must stay until run().
  void add(
      const StoredMatrix& matrix, const at::Tensor& x, const at::Tensor& y) {
    if (matrix.packed.defined() && activations_ == Activations::kInt8 &&
        kernels::has_rounded_product(matrix.packed, x)) {
      rounded_.push_back({&matrix.packed, x, y});
    } else if (matrix.packed.defined() && x.size(0) <= kFewRows) {
      packed_.push_back({&matrix.packed, x, y});
    } else {
      at::Tensor into = y;
      into.copy_(at::mm(x, matrix.unpacked(x.scalar_type()).t()));
    }
  }
  void run() {
    if (!packed_.empty()) kernels::packed_products(packed_);
    if (!rounded_.empty()) kernels::rounded_products(rounded_);
    packed_.clear();
    rounded_.clear();
  }

 private:
  Activations activations_;
  std::vector<kernels::PackedProduct> rounded_;
  std::vector<kernels::PackedProduct> packed_;
};

void add_gate_up(
    Products& products,
    const PackedLayer& layer,
    const MlpRoles& roles,
    std::int64_t expert,
    const at::Tensor& x,
    const at::Tensor& gate_up) {
  const StoredMatrix& up = layer.at(roles.up, expert);
  const std::int64_t width = up.rows();
  const std::int64_t above = gate_up.size(1) - width;
  if (above > 0) {
    products.add(layer.at(roles.gate, expert), x, gate_up.narrow(1, 0, width));
  }
  products.add(up, x, gate_up.narrow(1, above, width));
}

}  // namespace

at::Tensor packed_linear(
    const StoredMatrix& matrix, const at::Tensor& x, Activations activations) {
  at::Tensor y = at::empty({x.size(0), matrix.rows()}, x.options());
  Products products(activations);
  products.add(matrix, x.contiguous(), y);
  products.run();
  return y;
}

at::Tensor packed_mlp(
    const PackedLayer& layer,
    const MlpRoles& roles,
    const at::Tensor& x,
    const PackedMlpKind& kind) {
  const std::int64_t values =
      kernels::inputs_of(kind.activation) * layer.at(roles.up).rows();
  const at::Tensor gate_up = at::empty({x.size(0), values}, x.options());
  Products products(kind.activations);
  add_gate_up(products, layer, roles, -1, x, gate_up);
  products.run();
  return packed_linear(
      layer.at(roles.down),
      kernels::swiglu(gate_up, kind.activation),
      kind.activations);
}

at::Tensor packed_experts_forward(
    const LayerWeights& weights,
    const at::Tensor& x,
    const Mixture& mixture,
    Activations activations) {
  const ExpertBank& bank = weights.experts;
  const PackedLayer& layer = *weights.packed;
  const Dispatch all = dispatch(mixture.selected, bank.size());
  const at::Tensor rows = kernels::gather_rows(x, all.token);
  const at::Tensor ys = at::empty_like(rows);
  const auto rows_of = [&](const at::Tensor& whole, std::int64_t e) {
    return whole.narrow(0, all.starts[e], all.count(e));
  };
  std::vector<std::int64_t> chosen;
  std::vector<at::Tensor> gate_up(bank.size());
  Products products(activations);
  for (std::int64_t e = 0; e < bank.size(); ++e) {
    if (all.count(e) == 0) continue;
    if (bank.width(e) == 0) {
      rows_of(ys, e).zero_();
      continue;
    }
    chosen.push_back(e);
    gate_up[e] =
        at::empty({all.count(e), bank.inputs() * bank.width(e)}, x.options());
    add_gate_up(products, layer, kExpertRoles, e, rows_of(rows, e), gate_up[e]);
  }
  products.run();
  for (const std::int64_t e : chosen) {
    if (bank.gate_up_bias.defined()) gate_up[e].add_(bank.gate_up_bias_of(e));
    products.add(
        layer.at(kExpertRoles.down, e),
        kernels::swiglu(gate_up[e], bank.activation),
        rows_of(ys, e));
  }
  products.run();
  if (bank.constant.defined()) {
    for (std::int64_t e = 0; e < bank.size(); ++e) {
      if (all.count(e) > 0) rows_of(ys, e).add_(bank.constant[e]);
    }
  }
  return kernels::combine(ys, all.position, mixture.weights);
}

}  // namespace fettle::model
