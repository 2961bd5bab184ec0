// SPDX-License-Identifier: Apache-2.0
// How the active neurons are chosen, and chosen anew.
#include <fmt/format.h>

#include "tune/neuron_scorer.h"
#include "tune/sparse_neurons.h"

namespace fettle::tune {

namespace {

std::vector<std::int64_t> to_vector(const at::Tensor& index) {
  const auto* values = index.const_data_ptr<std::int64_t>();
  return {values, values + index.numel()};
}

std::size_t count(const NeuronSets& sets) {
  std::size_t total = 0;
  for (const auto& set : sets) total += set.size();
  return total;
}

std::size_t count(const NeuronScores& scores) {
  std::size_t total = 0;
  for (const auto& layer : scores) total += layer.size();
  return total;
}

}  // namespace

bool SparseNeurons::is_due(std::int64_t step) const {
  return step == 0 ||
         (options_.reselect_every > 0 && step % options_.reselect_every == 0);
}

NeuronSets SparseNeurons::active_sets() const {
  NeuronSets sets;
  for (const Layer& layer : layers_) {
    sets.push_back(to_vector(layer.active.index));
  }
  return sets;
}

NeuronScores SparseNeurons::worth() const {
  NeuronScores result(layers_.size());
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const NeuronRows base =
        read_rows(reader_, static_cast<std::int64_t>(l), layer.active.index);
    at::Tensor change = layer.active.values - base.values.to(device_);
    if (options_.drop_by == DropBy::kMoment) {
      change.abs_()
          .mul_(layer.adam.first.abs())
          .div_(layer.adam.second.sqrt().add_(options_.adamw.epsilon));
    } else {
      change.square_();
    }
    // The square root would not change the order.
    const at::Tensor sums =
        change.sum(at::IntArrayRef({0, 2}), false, at::kDouble).cpu();
    const double* values = sums.const_data_ptr<double>();
    result[l].assign(values, values + sums.numel());
  }
  return result;
}

void SparseNeurons::prepare(const PrepareInput& input) {
  if (!is_due(input.step)) return;
  NeuronScorer scorer(reader_.config(), device_);
  input.gradient_probe(scorer, options_.score_sequences);
  const NeuronScores scores = scorer.scores();
  const NeuronSets before = active_sets();
  const NeuronSets after =
      input.step == 0 ? choose_neurons(scores, options_.frac, options_.scope)
                      : exchange_neurons(
                            {before,
                             worth(),
                             scores,
                             drop_share(
                                 options_.drop_fraction,
                                 input.step,
                                 options_.schedule.steps),
                             options_.scope});
  std::int64_t grown = 0;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const at::Tensor index = at::tensor(after[l], at::kLong);
    grown += difference(index, layers_[l].active.index).size(0);
    set_active(static_cast<std::int64_t>(l), index);
  }
  input.reporter.note(fmt::format(
      "step {}: {} of {} neurons are trained, {} of them new",
      input.step,
      count(after),
      count(scores),
      grown));
}

void SparseNeurons::set_active(std::int64_t layer, const at::Tensor& index) {
  Layer& own = layers_[layer];
  NeuronRows next{
      index, at::empty({3, index.size(0), own.active.values.size(2)})};
  next.values = next.values.to(device_);
  const NeuronRows known = merge_rows(own.active, own.frozen);
  const at::Tensor unknown = difference(index, known.index);
  const auto fill = [&](const NeuronRows& from) {
    const CommonPositions common = common_positions(from.index, index);
    next.values.index_copy_(
        1,
        common.in_b.to(device_),
        from.values.to(device_).index_select(1, common.in_a.to(device_)));
  };
  fill(known);
  fill(read_rows(reader_, layer, unknown));

  AdamWState adam = AdamWState::zeros_like(next.values);
  const CommonPositions kept = common_positions(own.active.index, index);
  const at::Tensor from = kept.in_a.to(device_);
  const at::Tensor to = kept.in_b.to(device_);
  adam.first.index_copy_(1, to, own.adam.first.index_select(1, from));
  adam.second.index_copy_(1, to, own.adam.second.index_select(1, from));
  adam.age.index_copy_(0, kept.in_b, own.adam.age.index_select(0, kept.in_a));

  NeuronRows frozen;
  frozen.index = difference(known.index, index);
  const CommonPositions left = common_positions(known.index, frozen.index);
  frozen.values = known.values.index_select(1, left.in_a.to(device_));
  own.adam = std::move(adam);
  set_rows(own, std::move(next), std::move(frozen));
}

}  // namespace fettle::tune
