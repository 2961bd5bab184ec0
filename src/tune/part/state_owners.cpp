// SPDX-License-Identifier: Apache-2.0
#include "tune/part/state_owners.h"

#include <algorithm>
#include <charconv>

#include "ranks/group.h"

namespace fettle::tune {

namespace {

at::Tensor without_values(const at::Tensor& like) {
  return at::empty(like.sizes(), like.options().device(at::kMeta));
}

// Of a tensor's name in a state.
std::int64_t layer_of(std::string_view name) {
  constexpr std::string_view kLayers = ".layers.";
  const std::size_t place = name.find(kLayers);
  if (place == std::string_view::npos) return StateOwners::kGlobals;
  std::int64_t layer = StateOwners::kGlobals;
  std::from_chars(
      name.data() + place + kLayers.size(), name.data() + name.size(), layer);
  return layer;
}

}  // namespace

StateOwners::StateOwners(const ranks::Team& team)
    : group_(team.divides() && team.ranks() > 1 ? team.group : nullptr) {}

std::int64_t StateOwners::owner(std::int64_t layer) const {
  if (!divide()) return 0;
  return layer == kGlobals ? group_->size() - 1 : layer % group_->size();
}

bool StateOwners::owns(std::int64_t layer) const {
  return !divide() || owner(layer) == group_->rank();
}

ranks::Reduction StateOwners::sum_of(std::int64_t layer) const {
  if (!divide()) return ranks::Reduction::kSum;
  return {ranks::Reduction::kSum, owner(layer)};
}

AdamWState StateOwners::moments(
    std::int64_t layer, const at::Tensor& values) const {
  if (owns(layer)) return AdamWState::zeros_like(values);
  return {
      without_values(values),
      without_values(values),
      at::zeros({values.size(-2)}, at::kLong)};
}

void StateOwners::leave(std::int64_t layer, at::Tensor& gradient) const {
  if (!owns(layer) && gradient.defined()) gradient = without_values(gradient);
}

void StateOwners::share(
    std::int64_t layer, const std::vector<at::Tensor>& values) const {
  if (divide()) ranks::share(*group_, values, owner(layer));
}

bool StateOwners::keeps(std::string_view name) const {
  const bool moment = name.ends_with(".first") || name.ends_with(".second");
  return !moment || owns(layer_of(name));
}

double state_share(std::int64_t layers, std::int64_t ranks) {
  if (ranks <= 1 || layers == 0) return 1.0;
  const std::int64_t most = (layers + ranks - 1) / ranks + 1;
  return std::min(1.0, static_cast<double>(most) / static_cast<double>(layers));
}

}  // namespace fettle::tune
