// SPDX-License-Identifier: Apache-2.0
// How the part is kept between runs.
#include "tune/part/state_tensors.h"
#include "tune/sparse/sparse_units.h"

namespace fettle::tune {

void SparseUnits::save_state(artifact::TensorMap& into) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    if (layer.units == 0) continue;
    const auto put = [&](std::string_view what, const at::Tensor& tensor) {
      into[layer_key(name(), static_cast<std::int64_t>(l), what)] = tensor;
    };
    put("active.index", layer.active.index.stored());
    put("active.values", layer.active.values);
    put("active.first", layer.adam.first);
    put("active.second", layer.adam.second);
    put("active.age", layer.adam.age);
    put("frozen.index", layer.frozen.index.stored());
    put("frozen.values", layer.frozen.values);
  }
}

void SparseUnits::load_state(const artifact::TensorMap& from) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    if (layer.units == 0) continue;
    const auto key = [&](std::string_view what) {
      return layer_key(name(), static_cast<std::int64_t>(l), what);
    };
    const auto rows = [&](std::string_view which, const at::Tensor& index) {
      return take_tensor(
          from,
          key(which),
          {at::kFloat, {shape_.planes, index.size(0), shape_.width}});
    };
    const auto index = [&](std::string_view which) {
      return CompactIndex::from_stored(
                 take_tensor(from, key(which), {at::kByte, {-1}}),
                 key(which),
                 layer.units)
          .decode();
    };
    const at::Tensor active = index("active.index");
    const at::Tensor frozen = index("frozen.index");
    const auto id = static_cast<std::int64_t>(l);
    const at::Tensor values = rows("active.values", active);
    if (options_.owners.owns(id)) {
      layer.adam.first = rows("active.first", active).to(device_);
      layer.adam.second = rows("active.second", active).to(device_);
    } else {
      layer.adam = options_.owners.moments(id, values);
    }
    set_rows(id, {active, values}, {frozen, rows("frozen.values", frozen)});
    // A run that failed before its first choice has no ages.
    layer.adam.age = take_tensor(
        from,
        key("active.age"),
        {at::kInt, {active.size(0) > 0 ? num_ages(id) : -1}});
  }
}

}  // namespace fettle::tune
