// SPDX-License-Identifier: Apache-2.0
// Which scheme each weight gets where bits are shared out: measuring, and the
// plan that follows.
#pragma once

#include <filesystem>
#include <string>

#include "cli/quant_flags.h"
#include "quant/bit_plan.h"
#include "quant/errors.h"

namespace fettle::cli {

struct BitsRun {
  const QuantFlags& flags;
  // Model, data, method and grid: what errors depend on, but for schemes.
  Json identity;
  std::int64_t moment_bytes = 0;
  Reporter& reporter;
};

// Measures into quant_errors.json of `folder` what is not there yet, and writes
// quant_plan.json there. `data` may be null under rtn.
quant::BitPlan plan_within_budget(
    const BitsRun& run,
    const model::ModelReader& reader,
    quant::Calibrated* data,
    const std::filesystem::path& folder);

// How many matrices of each role have which scheme, what they take, and how
// good the choice is.
std::string bit_plan_text(const quant::BitPlan& plan);
Json bit_plan_json(const quant::BitPlan& plan);

}  // namespace fettle::cli
