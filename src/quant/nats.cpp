// SPDX-License-Identifier: Apache-2.0
#include "quant/nats.h"

#include <algorithm>

namespace fettle::quant {
namespace {

using model::Role;

// Whether `down` is what the output of `role`'s weight goes through.
bool passes(Role role, Role down) {
  for (const model::MlpRoles& mlp :
       {model::kExpertRoles, model::kSharedRoles, model::kDenseRoles}) {
    if (mlp.has(role)) return mlp.down == down && role != down;
  }
  return false;
}

}  // namespace

LayerNats::LayerNats(const LayerErrors& layer, double otherwise)
    : layer_(layer), mean_(otherwise) {
  double sum = 0;
  double count = 0;
  for (const MeasuredWeight& weight : layer.weights) {
    const double nats = whole(weight);
    sum += nats;
    count += nats > 0 ? 1 : 0;
  }
  if (count > 0) mean_ = sum / count;
}

double LayerNats::whole(const MeasuredWeight& weight) {
  const MeasuredOption& worst =
      *std::ranges::max_element(weight.options, {}, &MeasuredOption::error);
  return worst.error > 0 ? worst.nats * weight.energy / worst.error : 0;
}

double LayerNats::of(
    const MeasuredWeight& weight, const MeasuredOption& option) const {
  if (option.nats > 0 || option.error <= 0 || weight.energy <= 0) {
    return option.nats;
  }
  double price = mean_;
  for (const MeasuredWeight& other : layer_.weights) {
    if (other.id.expert != weight.id.expert) continue;
    if (!passes(weight.id.role, other.id.role)) continue;
    if (whole(other) > 0) price = whole(other);
  }
  return price * option.error / weight.energy;
}

double dearest_mean(const std::vector<LayerErrors>& layers) {
  double most = 0;
  for (const LayerErrors& layer : layers) {
    most = std::max(most, LayerNats(layer).mean());
  }
  return most;
}

}  // namespace fettle::quant
