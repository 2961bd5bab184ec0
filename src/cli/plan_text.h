// SPDX-License-Identifier: Apache-2.0
// What a tune run will take, as a table.
#pragma once

#include <string>

#include "tune/run_plan.h"

namespace fettle::cli {

std::string run_plan_table(const tune::RunPlan& plan);

}  // namespace fettle::cli
