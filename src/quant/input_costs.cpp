// SPDX-License-Identifier: Apache-2.0
#include "quant/input_costs.h"

#include <algorithm>

#include "kernels/swiglu.h"
#include "model/weights/packed_weight.h"

namespace fettle::quant {
namespace {

using model::Role;
using model::WeightId;

class ExpertOutput {
 public:
  ExpertOutput(const InputCosts& costs, std::int64_t layer, std::int64_t expert)
      : costs_(costs), layer_(layer), expert_(expert) {
    down_ = read(Role::kExpertDown);
    const auto& config = costs.reader.config();
    const auto& row = config.layers[layer];
    if (model::role_info(Role::kExpertGateBias).exists(config, row)) {
      bias_ = at::cat({read(Role::kExpertGateBias), read(Role::kExpertUpBias)});
    }
  }

  at::Tensor read(Role role) const {
    return costs_.reader.read({role, layer_, expert_})
        .to(costs_.device)
        .to(at::kFloat);
  }

  // [n, H] of the sample.
  at::Tensor of(const at::Tensor& gate, const at::Tensor& up) const {
    at::Tensor inner = at::mm(costs_.hessian.sample, at::cat({gate, up}).t());
    if (bias_.defined()) inner.add_(bias_);
    const auto activation = costs_.reader.config().activation;
    return at::mm(kernels::swiglu(inner, activation), down_.t());
  }

 private:
  const InputCosts& costs_;
  std::int64_t layer_, expert_;
  at::Tensor down_, bias_;
};

at::Tensor values_of(const QuantizedWeight& weight, at::Device device) {
  const at::Tensor values =
      at::empty({weight.matrix.rows, weight.matrix.cols}, at::kFloat);
  kernels::unpack_rows(weight.matrix, 0, values);
  return values.to(device);
}

}  // namespace

void price_inputs(
    const InputCosts& costs, std::vector<QuantizedWeight>& results) {
  const WeightId& first = costs.weights.front().first;
  const Hessian& hessian = costs.hessian;
  const bool inputs =
      first.role == Role::kExpertGate || first.role == Role::kExpertUp;
  const bool gated = model::inputs_of(costs.reader.config().activation) > 1;
  if (!inputs || !gated || !hessian.sample.defined()) return;
  const at::Tensor prices = costs.prices.of(
      costs.reader.config(), {Role::kExpertDown, first.layer, first.expert});
  if (!prices.defined()) return;
  const ExpertOutput output(costs, first.layer, first.expert);
  const at::Tensor exact =
      output.of(output.read(Role::kExpertGate), output.read(Role::kExpertUp));
  const at::Tensor weights = hessian.sample_weights.to(at::kDouble);
  const double times = static_cast<double>(hessian.tokens) /
                       static_cast<double>(hessian.sample.size(0));
  for (std::size_t g = 0; g < results.size(); ++g) {
    const auto& [gate, scheme] = costs.weights[g];
    if (gate.role != Role::kExpertGate) continue;
    const auto partner = std::ranges::find(
        costs.weights,
        WeightScheme{{Role::kExpertUp, gate.layer, gate.expert}, scheme});
    if (partner == costs.weights.end()) continue;
    QuantizedWeight& up = results[partner - costs.weights.begin()];
    const at::Tensor error =
        output.of(
            values_of(results[g], costs.device), values_of(up, costs.device)) -
        exact;
    const at::Tensor lost =
        at::mv(error.square(), prices.to(costs.device)).to(at::kDouble);
    const double cost = times * lost.dot(weights).item<double>();
    results[g].cost = up.cost = cost / 2;
  }
}

}  // namespace fettle::quant
