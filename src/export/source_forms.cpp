// SPDX-License-Identifier: Apache-2.0
#include "export/source_forms.h"

#include "model/family/text_part.h"

namespace fettle::exporter {
namespace {

using model::Role;

// Selection hangs on the last bits of what is added to a router's scores, and
// stock checkpoints keep it in fp32; so are Fettle's own constants.
bool keeps_type(const model::ModelConfig& config, Role role) {
  return role == Role::kRouterCorrection || model::weight_row(config, role).own;
}

}  // namespace

SourceForms forms_of(const model::ModelReader& reader) {
  return {
      reader.config(),
      reader.folder().string(),
      [&reader](const model::WeightId& id) { return reader.dtype(id); },
      [&reader](const model::WeightId& id) { return reader.packed_header(id); },
      reader.carried_bytes(),
      [&reader](const model::WeightId& id) {
        const model::StoredForm* const form = reader.stored_form(id);
        return form == nullptr ? std::nullopt : form->blocks();
      }};
}

at::ScalarType loaded_type(
    const model::ModelConfig& config, const SourceForms& source) {
  const std::string name = model::stated_dtype(config.json);
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  return source.dtype({Role::kFinalNorm});
}

at::ScalarType exported_dtype(
    const SourceForms& source,
    const model::ModelConfig& target,
    const ExportOptions& options,
    const model::WeightId& id) {
  if (options.dtype && !keeps_type(target, id.role)) return *options.dtype;
  // Loaders would make an unpacked weight this type anyway.
  const bool unpacked = source.packed(id) != nullptr;
  return unpacked && options.format != Format::kRagged
             ? loaded_type(target, source)
             : source.dtype(id);
}

}  // namespace fettle::exporter
