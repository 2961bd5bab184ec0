// SPDX-License-Identifier: Apache-2.0
#include "export/exported_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "core/progress.h"
#include "export/source_forms.h"
#include "export/value_check.h"

namespace fettle::exporter {
namespace {

bool holds(at::ScalarType wide, at::ScalarType narrow) {
  return wide == narrow || wide == at::kFloat || wide == at::kDouble;
}

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
  return exported_dtype(forms_of(reader_), target_, options_, id);
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
  return std::ranges::any_of(ids, [&](const auto& id) {
    const bool packed = reader_.packed_header(id) != nullptr;
    const bool codes = packed && options_.format > Format::kRagged;
    // Values of codes that another tool wrote are exact in fp32 alone, but for
    // those of MXFP4.
    const auto* const form = packed ? nullptr : reader_.stored_form(id);
    if (form != nullptr && dtype(id) != at::kFloat) {
      const auto grid = form->blocks();
      if (!grid || grid->bits > 4 || dtype(id) != at::kBFloat16) return true;
    }
    return !codes && !stays_packed(id) && !holds(dtype(id), reader_.dtype(id));
  });
}

void ExportedWeights::require_finite() const {
  const auto ids = model::model_weights(target_);
  Progress progress(options_.reporter, "check", ids.size(), "weights");
  for (const model::WeightId& id : ids) {
    progress.advance(1);
    if (reader_.packed_header(id) != nullptr) {
      reader_.read_packed(id);  // refuses scales that are not finite
      if (stays_packed(id) || dtype(id) != at::kHalf) continue;
    }
    const at::Tensor stored = reader_.read(id);
    if (artifact::is_finite(stored.to(dtype(id)))) continue;
    const bool fits = artifact::is_finite(stored);
    throw UserError(
        "export",
        model::weight_name(reader_.config(), id),
        fits ? fmt::format(
                   "expected values that {} can hold, found larger ones; "
                   "export with --dtype bfloat16 or float32",
                   at::toString(dtype(id)))
             : "expected finite values, found NaN or infinity; nothing was "
               "written. Perhaps a damaged file, or a tuning that diverged?");
  }
}

at::ScalarType ExportedWeights::loaded_type() const {
  return exporter::loaded_type(target_, forms_of(reader_));
}

}  // namespace fettle::exporter
