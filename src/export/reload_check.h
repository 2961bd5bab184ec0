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

// How far two models' outputs on the same tokens are from each other.
struct ForwardDifference {
  // Of final hidden states and logits, relative to the largest value.
  double largest = 0;
  // Mean KL of the second's predictions from the first's, in nats: hardly moved
  // by a token whose experts are chosen otherwise after a rounding.
  double kl = 0;
};

// Passes the same pseudo-random tokens through both folders' models. What the
// export dropped is left out of the source. Throws UserError where the source's
// outputs are not finite.
ForwardDifference forward_difference(
    const std::filesystem::path& source,
    const std::filesystem::path& folder,
    const ExportOptions& options);

}  // namespace fettle::exporter
