// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/sparse_neurons.h"

#include "tune/sparse/neuron_delta.h"
#include "tune/sparse/neuron_gradient.h"
#include "tune/sparse/neuron_rows.h"
#include "tune/sparse/neuron_scorer.h"

namespace fettle::tune {

namespace {

std::vector<std::int64_t> neurons_of(const model::ModelConfig& config) {
  std::vector<std::int64_t> counts;
  for (const auto& layer : config.layers) counts.push_back(layer.total_width());
  return counts;
}

}  // namespace

SparseNeurons::SparseNeurons(
    const model::ModelReader& reader,
    at::Device device,
    const SparseOptions& options)
    : SparseUnits(
          reader,
          device,
          options,
          {planes_of(reader.config()), reader.config().hidden_size},
          neurons_of(reader.config())) {
  for (const model::LayerConfig& layer : reader.config().layers) {
    const auto offsets = expert_offsets(layer);
    places_.push_back(
        {offsets,
         std::vector<std::int64_t>(offsets.size()),
         at::empty({0}, at::kLong)});
  }
}

void SparseNeurons::on_active_changed(
    std::int64_t layer, const at::Tensor& index) {
  Places& places = places_[layer];
  places.ranges = ranges_of(index, places.offsets);
  at::Tensor columns = index.clone();
  for (std::size_t e = 0; e + 1 < places.offsets.size(); ++e) {
    const std::int64_t first = places.ranges[e];
    columns.narrow(0, first, places.ranges[e + 1] - first)
        .sub_(places.offsets[e]);
  }
  places.columns = columns.to(device());
}

std::vector<SparseUnits::UnitRun> SparseNeurons::unit_runs(
    std::int64_t layer) const {
  const auto& ranges = places_[layer].ranges;
  std::vector<UnitRun> runs;
  for (std::size_t e = 0; e + 1 < ranges.size(); ++e) {
    runs.push_back(
        {static_cast<std::int64_t>(e), ranges[e], ranges[e + 1] - ranges[e]});
  }
  return runs;
}

UnitScores SparseNeurons::score(const PrepareInput& input) const {
  NeuronScorer scorer(reader().config(), device());
  input.gradient_probe(scorer, {options().score_sequences});
  return scorer.scores();
}

UnitRows SparseNeurons::read(
    std::int64_t layer, const at::Tensor& index) const {
  return read_rows(reader(), layer, index);
}

void SparseNeurons::write(
    std::int64_t layer,
    const UnitRows& rows,
    model::LayerWeights& weights) const {
  const std::int64_t inputs = weights.experts.inputs();
  const BankRows places =
      bank_rows(rows.index, places_[layer].offsets, inputs).to(device());
  write_rows(places, rows.values, weights.experts);
}

void SparseNeurons::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  if (!trains(layer)) return;
  const Places& places = places_[layer];
  const std::int64_t first = places.ranges[view.expert];
  const std::int64_t count = places.ranges[view.expert + 1] - first;
  if (count == 0) return;
  const at::NoGradGuard no_grad;
  add_neuron_gradient(
      view,
      places.columns.narrow(0, first, count),
      gradient_of(layer).narrow(1, first, count));
}

void SparseNeurons::save_adapter(artifact::TensorMap& into) const {
  for (std::int64_t l = 0; l < num_layers(); ++l) {
    NeuronDelta::save_layer(
        merge_rows(layer(l).active.decode(), layer(l).frozen.decode()),
        l,
        into);
  }
}

}  // namespace fettle::tune
