// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "artifact/model_writer.h"

namespace fettle::artifact {

std::int64_t weight_bytes(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const model::WeightForm& form) {
  if (form.packed()) return form.packed_bytes;
  if (form.blocks) {
    const auto grid = form.blocks->grid(model::weight_shape(config, id));
    return form.blocks->code_bytes(model::weight_shape(config, id)) +
           grid[0] * grid[1] *
               static_cast<std::int64_t>(io::size_of(form.blocks->scale_type));
  }
  return model::weight_numel(config, id) *
         static_cast<std::int64_t>(c10::elementSize(form.dtype));
}

ModelSize model_size(
    const model::ModelConfig& config,
    const model::WeightForms& form,
    std::int64_t carried_bytes) {
  ModelSize size;
  size.bytes = size.carried_bytes = carried_bytes;
  size.parameters = config.parameters();
  size.active_parameters = config.active_parameters();
  for (const model::WeightId& id : model::model_weights(config)) {
    size.bytes += weight_bytes(config, id, form(id));
  }
  std::vector<std::int64_t> widths;
  for (const model::LayerConfig& layer : config.layers) {
    widths.insert(
        widths.end(), layer.expert_widths.begin(), layer.expert_widths.end());
  }
  if (widths.empty()) return size;
  std::ranges::sort(widths);
  size.experts = static_cast<std::int64_t>(widths.size());
  for (const std::int64_t width : widths) size.neurons += width;
  size.min_width = widths.front();
  size.max_width = widths.back();
  const std::size_t half = widths.size() / 2;
  size.median_width =
      widths.size() % 2 == 1
          ? static_cast<double>(widths[half])
          : 0.5 * static_cast<double>(widths[half - 1] + widths[half]);
  size.zero_width = std::ranges::count(widths, std::int64_t{0});
  return size;
}

ModelSize stored_size(const model::ModelReader& reader) {
  ModelSize size = model_size(reader.config(), [&](const model::WeightId& id) {
    return reader.form(id);
  });
  size.bytes = size.carried_bytes = reader.carried_bytes();
  for (const model::WeightId& id : model::model_weights(reader.config())) {
    size.bytes += reader.stored_bytes(id);
  }
  return size;
}

Json ModelSize::to_json() const {
  return {
      {"parameters", parameters},
      {"active_parameters", active_parameters},
      {"bytes", bytes},
      {"carried_bytes", carried_bytes},
      {"experts", experts},
      {"neurons", neurons},
      {"min_width", min_width},
      {"median_width", median_width},
      {"max_width", max_width},
      {"zero_width", zero_width}};
}

}  // namespace fettle::artifact
