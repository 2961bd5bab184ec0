// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "artifact/model_writer.h"
#include "trim/kept_blocks.h"
#include "trim/plan.h"

namespace fettle::trim {
namespace {

using model::Role;

bool is_per_expert(Role role) {
  return model::role_info(role).scope == model::RoleScope::kRows;
}

// `bytes` of `parts`, rounded up.
std::int64_t rounded_share(std::int64_t bytes, std::int64_t parts) {
  return parts > 0 ? (bytes + parts - 1) / parts : 0;
}

struct PackedCost {
  std::int64_t neuron = 0;
  std::int64_t expert = 0;
};

// At most: a row of down ends in codes and a group that are not full.
PackedCost packed_cost(const model::PackedHeader& header, bool down) {
  const std::int64_t width = down ? header.cols : header.rows;
  if (width == 0) return {0, header.bytes()};
  const std::int64_t values = header.bytes() - model::kPackedHeaderBytes;
  const std::int64_t ends = header.rows * (header.bits + 2 + 1);
  return {
      (values + width - 1) / width,
      model::kPackedHeaderBytes + (down ? ends : 0)};
}

}  // namespace

ModelBytes model_bytes(
    const model::ModelReader& reader, const ModelBytesOptions& options) {
  const model::ModelConfig& config = reader.config();
  const auto form = [&](const model::WeightId& id) {
    return options.stored == Stored::kKeep ? kept_form(reader, id)
                                           : reader.form(id);
  };
  ModelBytes result;
  result.fixed = reader.carried_bytes();
  for (const model::WeightId& id : model::model_weights(config)) {
    if (!model::is_expert_role(id.role) && !is_per_expert(id.role)) {
      result.fixed += artifact::weight_bytes(config, id, form(id));
    }
  }
  // Layers may be stored in different types; the dearest stands for all, so
  // that a budget is never passed.
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const model::LayerConfig& layer = config.layers[l];
    if (!layer.sparse) continue;
    std::int64_t neuron = 0;
    std::int64_t expert = 0;
    for (const model::WeightId& id : model::layer_weights(config, l)) {
      const auto element =
          static_cast<std::int64_t>(c10::elementSize(reader.dtype(id)));
      if (model::is_expert_role(id.role) && id.expert == 0) {
        if (const auto* header = reader.packed_header(id)) {
          const PackedCost cost =
              packed_cost(*header, id.role == Role::kExpertDown);
          neuron += cost.neuron;
          expert += cost.expert;
        } else if (form(id).blocks) {
          const std::int64_t bytes =
              artifact::weight_bytes(config, id, form(id));
          neuron += rounded_share(bytes, layer.expert_widths[0]);
        } else {
          neuron += element *
                    (model::is_expert_bias(id.role) ? 1 : config.hidden_size);
        }
      }
      if (id.role == Role::kExpertConstant) continue;
      if (is_per_expert(id.role)) {
        expert +=
            artifact::weight_bytes(config, id, form(id)) / layer.num_experts();
      }
    }
    if (layer.has_constants || options.constants) {
      expert += config.hidden_size *
                static_cast<std::int64_t>(c10::elementSize(at::kFloat));
    }
    result.per_neuron = std::max(result.per_neuron, neuron);
    result.per_expert = std::max(result.per_expert, expert);
  }
  return result;
}

}  // namespace fettle::trim
