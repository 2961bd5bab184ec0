// SPDX-License-Identifier: Apache-2.0
// Exports a model to one GGUF file, which llama.cpp and what is built on it
// load.
#pragma once

#include <filesystem>

#include "export/export.h"

namespace fettle::exporter {

inline constexpr const char* kGgufFile = "model.gguf";

// Writes `folder`/model.gguf, tensor by tensor, reads it back and compares
// every value. Throws UserError where the format or llama.cpp can't hold the
// model.
ExportResult export_gguf(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder);

// Reads all values of the file in `folder` and returns their largest error (see
// ExportResult). Throws InternalError when one is not the one meant.
double check_gguf(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder);

}  // namespace fettle::exporter
