// SPDX-License-Identifier: Apache-2.0
#include "export/export.h"

#include <fmt/format.h>

#include "core/error.h"
#include "export/codes/code_export.h"
#include "export/exported_weights.h"
#include "export/gguf/gguf_export.h"
#include "export/hf_code/hf_code_export.h"
#include "export/reload_check.h"

namespace fettle::exporter {
namespace {

// Rounding of fp32 sums whose order zero neurons change.
constexpr double kLargestError = 1e-5;

Json options_json(const ExportOptions& options) {
  return {
      {"format", format_name(options.format)},
      {"dtype",
       options.dtype ? Json(c10::toString(*options.dtype)) : Json("keep")},
      {"drop_constants", options.drop_constants},
      {"drop_condensers", options.drop_condensers},
      {"recode", options.recode},
      {"nearest", options.nearest},
      {"mtp", artifact::mtp_name(options.mtp)},
      {"seed", options.seed}};
}

void check_error(const ExportResult& result, const ExportOptions& options) {
  if (result.narrowed) return;
  const bool same = options.format == Format::kRagged && !options.dtype;
  const double bound = same ? 0.0 : kLargestError;
  if (result.max_error <= bound) return;
  throw InternalError(fmt::format(
      "the exported model's outputs differ from the source's by {:.3g}, more "
      "than {:.3g}",
      result.max_error,
      bound));
}

artifact::StageRecord record_of(const ExportOptions& options) {
  return {
      .stage = "export",
      .input_fingerprint = options.input_fingerprint,
      .options = options_json(options)};
}

ExportResult export_as(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  if (options.format == Format::kHfCode) {
    return export_hf_code(reader, options, folder);
  }
  return options.format == Format::kGguf
             ? export_gguf(reader, options, folder)
             : export_codes(reader, options, folder);
}

// The formats that Fettle does not read.
ExportResult export_foreign(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  ExportResult result = export_as(reader, options, folder);
  result.before = artifact::stored_size(reader);
  result.padded_neurons = result.after.neurons - result.before.neurons;
  artifact::StageRecord record = record_of(options);
  record.measured = result.to_json();
  artifact::write_manifest(reader.folder(), folder, record);
  return result;
}

}  // namespace

bool needs_packed(Format format) {
  return format == Format::kCompressedTensors || format == Format::kGptq;
}

ExportResult export_model(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  if (options.format == Format::kHfCode || options.format > Format::kRagged) {
    return export_foreign(reader, options, folder);
  }
  const model::ModelConfig config = exported_config(reader.config(), options);
  const ExportedWeights weights(reader, config, options);
  const auto form = [&](const model::WeightId& id) { return weights.form(id); };
  ExportResult result;
  result.before = artifact::stored_size(reader);
  const artifact::CarriedCopy carried(reader, config, options.mtp);
  result.after = artifact::model_size(config, form, carried.bytes());
  result.padded_neurons = result.after.neurons - result.before.neurons;
  result.narrowed = weights.narrows();
  weights.require_finite();
  artifact::write_model(
      {.source = reader,
       .config = config,
       .form = form,
       .tensor = [&](const model::WeightId& id) { return weights.tensor(id); },
       .record = record_of(options),
       .mtp = options.mtp,
       .shard_bytes = options.shard_bytes,
       .label = "export",
       .reporter = options.reporter},
      folder);
  check_tensors(folder, weights);
  const auto [largest, kl] =
      forward_difference(reader.folder(), folder, options);
  result.max_error = largest;
  result.kl = kl;
  check_error(result, options);
  artifact::set_measured(folder, result.to_json());
  return result;
}

Json ExportResult::to_json() const {
  Json json = {
      {"before", before.to_json()},
      {"after", after.to_json()},
      {"padded_neurons", padded_neurons},
      {"narrowed", narrowed},
      {"max_error", max_error},
      {"kl", kl}};
  if (!types.empty()) {
    json["types"] = types;
    json["rounded"] = rounded;
  }
  return json;
}

}  // namespace fettle::exporter
