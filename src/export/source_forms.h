// SPDX-License-Identifier: Apache-2.0
// What planning an export asks of a model: its shapes, and how each weight
// lies. So a model that is still to be made, trimmed or quantized, can be
// planned for, weighed and refused in its target's format beforehand.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "export/export.h"
#include "model/weights/model_reader.h"

namespace fettle::exporter {

struct SourceForms {
  const model::ModelConfig& config;
  std::string name;  // of the model, for messages
  // The type of a plain weight.
  std::function<at::ScalarType(const model::WeightId&)> dtype;
  // The header of a packed weight; null for a plain one.
  std::function<const model::PackedHeader*(const model::WeightId&)> packed;
  // Of tensors that are carried beside the weights; at most.
  std::int64_t carried_bytes = 0;
  // How a weight lies that another tool stored in blocks; may be unset.
  std::function<std::optional<model::BlockGrid>(const model::WeightId&)>
      blocks = {};
};

// Those of a model folder; `reader` must outlive the result.
SourceForms forms_of(const model::ModelReader& reader);

// The type that loaders give a model of this configuration.
at::ScalarType loaded_type(
    const model::ModelConfig& config, const SourceForms& source);

// The type on disk of a weight of the exported model `target` that is plain
// there.
at::ScalarType exported_dtype(
    const SourceForms& source,
    const model::ModelConfig& target,
    const ExportOptions& options,
    const model::WeightId& id);

}  // namespace fettle::exporter
