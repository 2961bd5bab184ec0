// SPDX-License-Identifier: Apache-2.0
#include "analyze/sum_observer.h"

namespace fettle::analyze {

LayerSums& SumObserver::keep(const std::string& name, LayerSums::Kind kind) {
  return sums_.try_emplace(name, config_, kind).first->second;
}

void SumObserver::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != pass_) return;
  for (auto& entry : sums_) {
    entry.second.begin(layer, weights.device());
  }
}

void SumObserver::for_each_sum(
    sweep::Pass pass, std::int64_t, const sweep::SumVisitor& visit) {
  if (pass != pass_) return;
  for (auto& entry : sums_) entry.second.visit(visit);
}

void SumObserver::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass != pass_) return;
  for (auto& entry : sums_) entry.second.end(layer);
}

Sums SumObserver::sums(std::int64_t layer) const {
  Sums result;
  for (const auto& [name, sum] : sums_) result[name] = sum.total(layer);
  return result;
}

void SumObserver::restore(std::int64_t layer, const Sums& sums) {
  for (auto& [name, sum] : sums_) sum.set(layer, values_of(sums, name));
}

at::Tensor plain_sum(const Sums& sums, const ExpertWidths&) {
  return values_of(sums, "sum").to(at::kFloat);
}

}  // namespace fettle::analyze
