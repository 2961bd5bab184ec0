// SPDX-License-Identifier: Apache-2.0
// Reads an exported folder back and compares it with what was meant.
#pragma once

#include <filesystem>

#include "export/export.h"
#include "export/exported_weights.h"

namespace fettle::exporter {

// Compares every tensor of `folder`, bit for bit. Throws InternalError naming
// the first that differs.
void check_tensors(
    const std::filesystem::path& folder, const ExportedWeights& expected);

// Passes the same pseudo-random tokens through both folders' models and returns
// the largest difference of final hidden states and logits, relative to the
// largest value. What the export dropped is left out of the source.
double forward_error(
    const std::filesystem::path& source,
    const std::filesystem::path& folder,
    const ExportOptions& options);

}  // namespace fettle::exporter
