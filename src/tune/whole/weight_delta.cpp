// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/weight_delta.h"

#include <fmt/format.h>

#include "core/error.h"
#include "model/weights/weight_view.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

std::string weight_key(std::string_view part, const model::WeightId& id) {
  if (id.layer < 0)
    return fmt::format("{}.{}", part, model::role_name(id.role));
  const std::string key = layer_key(part, id.layer, model::role_name(id.role));
  return id.expert < 0 ? key : fmt::format("{}.{}", key, id.expert);
}

std::vector<model::WeightId> stored_weights(
    const artifact::TensorMap& from,
    std::string_view part,
    std::string_view suffix,
    const model::ModelConfig& config) {
  std::vector<model::WeightId> ids;
  for (const model::WeightId& id : model::model_weights(config)) {
    if (from.contains(weight_key(part, id) + std::string(suffix))) {
      ids.push_back(id);
    }
  }
  return ids;
}

WeightDelta::WeightDelta(
    const artifact::TensorMap& from,
    std::string_view part,
    const model::ModelConfig& config)
    : layers_(config.layers.size()) {
  for (const model::WeightId& id : stored_weights(from, part, "", config)) {
    (id.layer < 0 ? globals_ : layers_[id.layer])
        .push_back(
            {id,
             take_tensor(
                 from,
                 weight_key(part, id),
                 {at::kFloat, model::weight_shape(config, id)})});
  }
}

const at::Tensor* WeightDelta::find(const model::WeightId& id) const {
  for (const Value& value : id.layer < 0 ? globals_ : layers_[id.layer]) {
    if (value.id == id) return &value.value;
  }
  return nullptr;
}

void WeightDelta::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const at::NoGradGuard no_grad;
  for (const Value& value : layers_[layer]) {
    model::weight_view(weights, value.id).copy_(value.value);
  }
}

void WeightDelta::patch_globals(model::GlobalWeights& weights) const {
  const at::NoGradGuard no_grad;
  for (const Value& value : globals_) {
    model::weight_view(weights, value.id).copy_(value.value);
  }
}

bool WeightDelta::changes(const model::WeightId& id) const {
  return find(id) != nullptr;
}

at::Tensor WeightDelta::merge(
    const model::WeightId& id, const at::Tensor& base) const {
  const at::Tensor* value = find(id);
  FETTLE_ASSERT(value != nullptr);
  return value->view_as(base);
}

}  // namespace fettle::tune
