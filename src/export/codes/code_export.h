// SPDX-License-Identifier: Apache-2.0
// Exports a model with packed weights to a format of integer codes in
// safetensors: compressed-tensors or gptq.
#pragma once

#include <filesystem>

#include "export/export.h"
#include "export/source_forms.h"

namespace fettle::exporter {

// Writes all but the manifest into `folder`, weight by weight, reads it back
// and compares every value. Throws UserError where the format can't hold the
// model.
ExportResult export_codes(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder);

// Bytes of all tensors of the export of such a model. Throws as export_codes.
std::int64_t code_bytes(
    const SourceForms& source, const ExportOptions& options);

// Reads all values of `folder` and returns their largest error (see
// ExportResult). Throws InternalError when one is not the one meant.
double check_codes(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder);

}  // namespace fettle::exporter
