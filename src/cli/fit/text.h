// SPDX-License-Identifier: Apache-2.0
// What fits a machine, as text for people.
#pragma once

#include <string>

#include "chain/fit_source.h"
#include "chain/fit_table.h"
#include "chain/tune_table.h"

namespace fettle::cli {

struct FitPaths {
  std::string model;
  std::string report = {};  // empty: none
};

// The table with what it says in words, what it rests on, and the next command.
std::string fit_text(
    const chain::FitSource& source,
    const chain::FitTable& table,
    const FitPaths& paths);

// The same of what tuning takes.
std::string fit_tune_text(
    const chain::FitSource& source,
    const chain::FitRequest& request,
    const chain::TuneTable& table);

}  // namespace fettle::cli
