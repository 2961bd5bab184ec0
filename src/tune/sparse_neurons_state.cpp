// SPDX-License-Identifier: Apache-2.0
// How the part is kept between runs and in the adapter.
#include "core/error.h"
#include "tune/neuron_delta.h"
#include "tune/sparse_neurons.h"
#include "tune/state_tensors.h"

namespace fettle::tune {

void SparseNeurons::save_state(artifact::TensorMap& into) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    if (layer.offsets.back() == 0) continue;
    const auto put = [&](std::string_view what, const at::Tensor& tensor) {
      into[layer_key(name(), static_cast<std::int64_t>(l), what)] = tensor;
    };
    put("active.index", layer.active.index.to(at::kInt));
    put("active.values", layer.active.values);
    put("active.first", layer.adam.first);
    put("active.second", layer.adam.second);
    put("active.age", layer.adam.age.to(at::kInt));
    put("frozen.index", layer.frozen.index.to(at::kInt));
    put("frozen.values", layer.frozen.values);
  }
}

void SparseNeurons::load_state(const artifact::TensorMap& from) {
  const std::int64_t hidden = reader_.config().hidden_size;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    if (layer.offsets.back() == 0) continue;
    const auto key = [&](std::string_view what) {
      return layer_key(name(), static_cast<std::int64_t>(l), what);
    };
    const auto rows = [&](std::string_view which, const at::Tensor& index) {
      return take_tensor(
          from, key(which), {at::kFloat, {3, index.size(0), hidden}});
    };
    const std::int64_t limit = layer.offsets.back();
    const at::Tensor active = take_index(from, key("active.index"), limit);
    const at::Tensor frozen = take_index(from, key("frozen.index"), limit);
    layer.adam.first = rows("active.first", active).to(device_);
    layer.adam.second = rows("active.second", active).to(device_);
    layer.adam.age =
        take_tensor(from, key("active.age"), {at::kInt, {active.size(0)}})
            .to(at::kLong);
    set_rows(
        layer,
        {active, rows("active.values", active)},
        {frozen, rows("frozen.values", frozen)});
  }
}

void SparseNeurons::save_adapter(artifact::TensorMap& into) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    NeuronDelta::save_layer(
        merge_rows(layer.active, layer.frozen),
        static_cast<std::int64_t>(l),
        into);
  }
}

}  // namespace fettle::tune
