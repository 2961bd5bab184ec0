// SPDX-License-Identifier: Apache-2.0
#include "trim/cut_layer.h"

#include <algorithm>
#include <numeric>

#include "trim/condensers.h"

namespace fettle::trim {
namespace {

// Rows that stay of a bank that has `copies` rows a neuron, an expert's rows
// after each other: gate rows, then up rows.
at::Tensor bank_rows(
    const model::ExpertBank& bank,
    const artifact::LayerPlan& plan,
    std::int64_t copies) {
  std::vector<std::int64_t> rows;
  for (const artifact::ExpertPlan& expert : plan.experts) {
    const std::int64_t begin = copies * bank.offsets[expert.expert];
    const std::int64_t width = bank.width(expert.expert);
    for (std::int64_t copy = 0; copy < copies; ++copy) {
      for (const std::int64_t k : expert.neurons) {
        rows.push_back(begin + copy * width + k);
      }
    }
  }
  return at::tensor(rows, at::kLong);
}

}  // namespace

model::LayerWeights cut_layer(
    const model::LayerWeights& whole, const artifact::LayerPlan& plan) {
  const at::NoGradGuard no_grad;
  model::LayerWeights result = whole;
  const at::Device device = whole.router.device();
  const std::vector<std::int64_t> experts = plan.kept_experts();
  std::vector<std::int64_t> offsets{0};
  for (const artifact::ExpertPlan& expert : plan.experts) {
    offsets.push_back(offsets.back() + expert.width());
  }
  const model::ExpertBank& bank = whole.experts;
  if (static_cast<std::int64_t>(experts.size()) < bank.size()) {
    const at::Tensor index = at::tensor(experts, at::kLong).to(device);
    const auto select = [&](at::Tensor& tensor) {
      if (tensor.defined()) tensor = tensor.index_select(0, index);
    };
    select(result.router);
    select(result.router_correction);
    select(result.router_bias);
    result.condensers = renumbered(whole.condensers, plan);
    select(result.experts.constant);
  }
  if (offsets.back() < bank.offsets.back()) {
    const at::Tensor rows = bank_rows(bank, plan, bank.inputs()).to(device);
    result.experts.gate_up = bank.gate_up.index_select(0, rows);
    result.experts.down =
        bank.down.index_select(0, bank_rows(bank, plan, 1).to(device));
    if (bank.gate_up_bias.defined()) {
      result.experts.gate_up_bias = bank.gate_up_bias.index_select(0, rows);
    }
  }
  result.experts.offsets = std::move(offsets);
  return result;
}

artifact::LayerPlan whole_experts(
    const artifact::LayerPlan& plan, const std::vector<std::int64_t>& widths) {
  artifact::LayerPlan result = plan;
  for (artifact::ExpertPlan& expert : result.experts) {
    expert.neurons.resize(static_cast<std::size_t>(widths[expert.expert]));
    std::iota(expert.neurons.begin(), expert.neurons.end(), 0);
  }
  return result;
}

bool cuts_neurons(
    const artifact::LayerPlan& plan, const std::vector<std::int64_t>& widths) {
  return std::ranges::any_of(
      plan.experts, [&](const artifact::ExpertPlan& expert) {
        return expert.width() < widths[expert.expert];
      });
}

}  // namespace fettle::trim
