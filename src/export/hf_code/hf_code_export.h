// SPDX-License-Identifier: Apache-2.0
// Exports a model as a folder that transformers runs at its ragged size
// (hf_code_layout.h). Fettle itself never runs the code that it writes.
#pragma once

#include <filesystem>

#include "export/export.h"
#include "export/source_forms.h"

namespace fettle::exporter {

// Writes all but the manifest into `folder`, reads it back and compares every
// value. Throws UserError where the format can't hold the model.
ExportResult export_hf_code(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder);

}  // namespace fettle::exporter
