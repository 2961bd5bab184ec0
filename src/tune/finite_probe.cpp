// SPDX-License-Identifier: Apache-2.0
#include "tune/finite_probe.h"

#include <fmt/format.h>

#include <array>

#include "ranks/group.h"
#include "sweep/sweep.h"

namespace fettle::tune {

void FiniteProbe::see(std::int64_t layer, const at::Tensor& tensor) {
  if (layer >= first_.load()) return;
  if (tensor.isfinite().all().item<bool>()) return;
  std::int64_t first = first_.load();
  while (layer < first && !first_.compare_exchange_weak(first, layer)) {
  }
}

void FiniteProbe::on_routing(
    std::int64_t layer, const model::RoutingView& view) {
  see(layer, view.x);
  see(layer, view.logits);
}

void FiniteProbe::on_expert(std::int64_t layer, const model::ExpertView& view) {
  see(layer, view.y);
}

std::int64_t FiniteProbe::layer() const {
  const std::int64_t first = first_.load();
  return first == kNone ? -1 : first;
}

std::string locate_non_finite(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options) {
  FiniteProbe probe;
  const std::array<sweep::Observer*, 1> observers{&probe};
  sweep::SweepOptions undivided = sweep_options;
  undivided.team = {};
  sweep::Sweep sweep(model, batches, undivided);
  sweep.forward(observers, {.keep_boundaries = false});
  const std::int64_t behind = model.config().num_layers();
  std::int64_t layer = probe.layer() < 0 ? behind : probe.layer();
  if (sweep_options.team.divides()) {
    layer = ranks::least(*sweep_options.team.group, layer);
  }
  if (layer == behind) return "after the last layer with experts";
  return fmt::format("in layer {}", layer);
}

}  // namespace fettle::tune
