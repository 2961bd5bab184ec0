// SPDX-License-Identifier: Apache-2.0
#include "model/layers/packed_products.h"

#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "kernels/expert_rows.h"
#include "kernels/packed_mlps.h"
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

// Whether MLPs of so many rows can go through the kernel as a whole.
bool is_few(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.size(0) <= kFewRows;
}

// Takes an MLP's matrices, if all of them are packed.
bool take(
    const PackedLayer& layer,
    const MlpRoles& roles,
    std::int64_t expert,
    std::int64_t inputs,
    kernels::PackedMlp& mlp) {
  const auto packed = [&](Role role) {
    const StoredMatrix& stored = layer.at(role, expert);
    return stored.packed.defined() ? &stored.packed : nullptr;
  };
  mlp.up = packed(roles.up);
  mlp.down = packed(roles.down);
  if (inputs == 2) mlp.gate = packed(roles.gate);
  return mlp.up != nullptr && mlp.down != nullptr &&
         (mlp.gate != nullptr || inputs == 1);
}

// The experts that have rows, where all of them can be computed together.
std::optional<std::vector<kernels::PackedMlp>> experts_together(
    const LayerWeights& weights, const at::Tensor& x, const Dispatch& all) {
  const ExpertBank& bank = weights.experts;
  if (!is_few(x) || bank.gate_up_bias.defined()) return std::nullopt;
  const std::span tokens(
      all.token.const_data_ptr<std::int64_t>(),
      static_cast<std::size_t>(all.token.size(0)));
  std::vector<kernels::PackedMlp> mlps;
  for (std::int64_t e = 0; e < bank.size(); ++e) {
    if (all.count(e) == 0) continue;
    kernels::PackedMlp mlp{
        .tokens = tokens.subspan(
            static_cast<std::size_t>(all.starts[e]),
            static_cast<std::size_t>(all.count(e)))};
    if (bank.width(e) > 0 &&
        !take(*weights.packed, kExpertRoles, e, bank.inputs(), mlp)) {
      return std::nullopt;
    }
    mlps.push_back(mlp);
  }
  return mlps;
}

// The outputs [M, H] of all chosen experts, in the dispatch's order, one by one
// but for their products.
at::Tensor experts_apart(
    const LayerWeights& weights,
    const at::Tensor& x,
    const Dispatch& all,
    Activations activations) {
  const ExpertBank& bank = weights.experts;
  const PackedLayer& layer = *weights.packed;
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
  return ys;
}

}  // namespace

std::vector<at::Tensor> packed_linears(
    std::span<const StoredMatrix* const> matrices,
    const at::Tensor& x,
    Activations activations) {
  std::vector<at::Tensor> all;
  Products products(activations);
  const at::Tensor rows = x.contiguous();
  for (const StoredMatrix* matrix : matrices) {
    all.push_back(at::empty({x.size(0), matrix->rows()}, x.options()));
    products.add(*matrix, rows, all.back());
  }
  products.run();
  return all;
}

at::Tensor packed_linear(
    const StoredMatrix& matrix, const at::Tensor& x, Activations activations) {
  const StoredMatrix* const one = &matrix;
  return packed_linears({&one, 1}, x, activations)[0];
}

at::Tensor packed_mlp(
    const PackedLayer& layer,
    const MlpRoles& roles,
    const at::Tensor& x,
    const PackedMlpKind& kind) {
  kernels::PackedMlp one;
  if (is_few(x) &&
      take(layer, roles, -1, kernels::inputs_of(kind.activation), one)) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(x.size(0)));
    std::iota(rows.begin(), rows.end(), 0);
    one.tokens = rows;
    return kernels::packed_mlps(
        x.contiguous(),
        {&one, 1},
        {kind.activation, kind.activations == Activations::kInt8});
  }
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
  const Dispatch all = dispatch(mixture.selected, bank.size());
  const auto together = experts_together(weights, x, all);
  const at::Tensor ys =
      together ? kernels::packed_mlps(
                     x.contiguous(),
                     *together,
                     {bank.activation, activations == Activations::kInt8})
               : experts_apart(weights, x, all, activations);
  if (bank.constant.defined()) {
    for (std::int64_t e = 0; e < bank.size(); ++e) {
      if (all.count(e) == 0) continue;
      ys.narrow(0, all.starts[e], all.count(e)).add_(bank.constant[e]);
    }
  }
  return kernels::combine(ys, all.position, mixture.weights);
}

}  // namespace fettle::model
