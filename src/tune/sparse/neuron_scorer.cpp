// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/neuron_scorer.h"

#include "tune/sparse/neuron_gradient.h"
#include "tune/sparse/neuron_rows.h"

namespace fettle::tune {

NeuronScorer::NeuronScorer(
    const model::ModelConfig& config, at::Device device) {
  for (const model::LayerConfig& layer : config.layers) {
    offsets_.push_back(expert_offsets(layer));
    sums_.push_back(at::zeros(
        {offsets_.back().back()}, at::dtype(at::kDouble).device(device)));
  }
}

void NeuronScorer::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  const at::NoGradGuard no_grad;
  const auto& offsets = offsets_[layer];
  sums_[layer]
      .narrow(0, offsets[view.expert], view.h.size(1))
      .add_(neuron_gradient_norms(view));
}

void NeuronScorer::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  if (pass == sweep::Pass::kBackward) before_.show(sums_[layer], visit);
}

void NeuronScorer::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass == sweep::Pass::kBackward) before_.end(sums_[layer]);
}

UnitScores NeuronScorer::scores() const {
  UnitScores result;
  for (const at::Tensor& sum : sums_) {
    const at::Tensor root = sum.sqrt().cpu();
    const double* values = root.const_data_ptr<double>();
    result.emplace_back(values, values + root.numel());
  }
  return result;
}

}  // namespace fettle::tune
