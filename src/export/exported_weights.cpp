// SPDX-License-Identifier: Apache-2.0
#include "export/exported_weights.h"

#include <algorithm>
#include <string>

#include "export/value_check.h"

namespace fettle::exporter {
namespace {

using model::Role;

// Selection hangs on the last bits of a router's biases, and stock checkpoints
// keep theirs in fp32; so do Fettle's own constants.
bool keeps_type(Role role) {
  return role == Role::kRouterCorrection || role == Role::kRouterBias ||
         role == Role::kExpertConstant;
}

bool holds(at::ScalarType wide, at::ScalarType narrow) {
  return wide == narrow || wide == at::kFloat || wide == at::kDouble;
}

// Whether packed weights become codes of another format, and those that can't
// plain ones.
bool has_codes(Format format) {
  return format == Format::kCompressedTensors || format == Format::kGptq;
}

// GGUF holds a packed weight's values exactly, or refuses.
bool is_exact(Format format) { return format == Format::kGguf; }

}  // namespace

ExportedWeights::ExportedWeights(
    const model::ModelReader& reader,
    const model::ModelConfig& target,
    const ExportOptions& options)
    : reader_(reader), target_(target), options_(options) {}

bool ExportedWeights::stays_packed(const model::WeightId& id) const {
  return options_.format == Format::kRagged && !options_.dtype &&
         reader_.packed_header(id) != nullptr;
}

model::WeightForm ExportedWeights::form(const model::WeightId& id) const {
  return stays_packed(id) ? reader_.form(id) : model::WeightForm{dtype(id)};
}

at::ScalarType ExportedWeights::dtype(const model::WeightId& id) const {
  if (options_.dtype && !keeps_type(id.role)) return *options_.dtype;
  const bool unpacked = reader_.packed_header(id) != nullptr;
  return unpacked && !is_exact(options_.format) ? loaded_type()
                                                : reader_.dtype(id);
}

at::Tensor ExportedWeights::tensor(const model::WeightId& id) const {
  if (stays_packed(id)) return reader_.read_stored(id);
  return filled_up(
      reader_.read(id).to(dtype(id)), model::weight_shape(target_, id));
}

at::Tensor ExportedWeights::meant(const model::WeightId& id) const {
  if (reader_.packed_header(id) == nullptr) return tensor(id);
  return filled_up(reader_.read(id), model::weight_shape(target_, id));
}

bool ExportedWeights::narrows() const {
  const auto ids = model::model_weights(target_);
  if (has_codes(options_.format) && !options_.dtype) return false;
  return std::ranges::any_of(ids, [&](const auto& id) {
    return !stays_packed(id) && !holds(dtype(id), reader_.dtype(id));
  });
}

at::ScalarType ExportedWeights::loaded_type() const {
  const JsonObject json(target_.json, "export", "config.json");
  const std::string name =
      json.string_or("dtype", json.string_or("torch_dtype", ""));
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  return reader_.dtype({Role::kFinalNorm});
}

}  // namespace fettle::exporter
