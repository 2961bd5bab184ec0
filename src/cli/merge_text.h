// SPDX-License-Identifier: Apache-2.0
// What a merge kept of the tuned change, as a table.
#pragma once

#include <string>

#include "cli/table.h"
#include "tune/adapter/merge_adapter.h"

namespace fettle::cli {

const char* merge_dtype_help();
std::string merge_table(const tune::MergeReport& report);

}  // namespace fettle::cli
