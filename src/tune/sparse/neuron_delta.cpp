// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/neuron_delta.h"

#include <array>
#include <span>

#include "core/error.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

namespace {

constexpr std::string_view kNeuronsPart = "neurons";
constexpr std::array<std::string_view, 3> kPlanes{
    "gate_proj", "up_proj", "down_proj"};

// Of neurons that have as many planes.
std::span<const std::string_view> plane_names(std::int64_t planes) {
  return std::span(kPlanes).last(static_cast<std::size_t>(planes));
}

}  // namespace

void NeuronDelta::save_layer(
    const UnitRows& rows, std::int64_t layer, artifact::TensorMap& into) {
  if (rows.size() == 0) return;
  into[layer_key(kNeuronsPart, layer, "index")] = rows.index.to(at::kInt);
  std::int64_t p = 0;
  for (const std::string_view plane : plane_names(rows.values.size(0))) {
    into[layer_key(kNeuronsPart, layer, plane)] =
        rows.values.select(0, p++).contiguous();
  }
}

NeuronDelta::NeuronDelta(
    const artifact::TensorMap& from, const model::ModelConfig& config) {
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    Layer& layer = layers_.emplace_back();
    layer.offsets = expert_offsets(config.layers[l]);
    layer.rows = no_units(planes_of(config), config.hidden_size);
    const auto id = static_cast<std::int64_t>(l);
    if (const std::string key = layer_key(kNeuronsPart, id, "index");
        from.contains(key)) {
      layer.rows.index = take_index(from, key, layer.offsets.back());
      std::vector<at::Tensor> planes;
      for (const std::string_view plane : plane_names(planes_of(config))) {
        planes.push_back(take_tensor(
            from,
            layer_key(kNeuronsPart, id, plane),
            {at::kFloat, {layer.rows.index.size(0), config.hidden_size}}));
      }
      layer.rows.values = at::stack(planes);
    }
    layer.ranges = ranges_of(layer.rows.index, layer.offsets);
  }
}

void NeuronDelta::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const Layer& own = layers_[layer];
  const at::Device device = weights.device();
  write_rows(
      bank_rows(own.rows.index, own.offsets, weights.experts.inputs())
          .to(device),
      own.rows.values.to(device),
      weights.experts);
}

bool NeuronDelta::changes(const model::WeightId& id) const {
  if (id.role != model::Role::kExpertGate &&
      id.role != model::Role::kExpertUp &&
      id.role != model::Role::kExpertDown) {
    return false;
  }
  const Layer& layer = layers_[id.layer];
  return layer.ranges[id.expert] < layer.ranges[id.expert + 1];
}

at::Tensor NeuronDelta::merge(
    const model::WeightId& id, const at::Tensor& base) const {
  FETTLE_ASSERT(changes(id));
  const Layer& layer = layers_[id.layer];
  const std::int64_t first = layer.ranges[id.expert];
  const std::int64_t count = layer.ranges[id.expert + 1] - first;
  const at::Tensor place =
      layer.rows.index.narrow(0, first, count) - layer.offsets[id.expert];
  const at::Tensor values = layer.rows.values.narrow(1, first, count);
  switch (id.role) {
    case model::Role::kExpertGate:
      return base.index_copy(0, place, values[0]);
    case model::Role::kExpertUp:
      return base.index_copy(0, place, values[values.size(0) - 2]);
    default:  // down_proj is [H, I]: a neuron is a column
      return base.index_copy(1, place, values[values.size(0) - 1].t());
  }
}

}  // namespace fettle::tune
