// SPDX-License-Identifier: Apache-2.0
// What a stage cost a model, on held-out data: its loss before and after, and
// how far its predictions have moved.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/session.h"
#include "core/json.h"
#include "sweep/evaluate.h"

namespace fettle::cli {

struct HeldOutFiles {
  const std::vector<std::string>& names;  // as --eval-data gives them
  std::int64_t seq_len = 0;               // of a window
  const DataFlags& flags;
};

// The windows of the files of --eval-data, read before any work, so that what
// is wrong with them is reported then. Empty: none were named.
std::vector<sweep::EvalSet> held_out(
    const Session& session,
    const model::ModelReader& reader,
    const HeldOutFiles& files);

struct QualityInput {
  const std::vector<sweep::EvalSet>& sets;  // at least one
  std::filesystem::path before, after;      // model folders
};

// {"files": [{"file", "tokens", "nll_before", "nll", "kl", "top1"}], and the
// means over files as "nll_before", "nll", "kl", "top1"}.
Json measure_quality(Session& session, const QualityInput& input);

// A table of it, a row a file.
std::string quality_table(const Json& quality);

}  // namespace fettle::cli
