// SPDX-License-Identifier: Apache-2.0
// The flags of a trim: what is cut, and what makes up for it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/data_flags.h"
#include "trim/merge_plan.h"
#include "trim/plan.h"
#include "trim/repair.h"

namespace fettle::cli {

struct TrimFlags {
  // As given; named values as their names.
  std::string scope = "global", unit = "neuron", normalise = "none";
  std::string widths = "free", repair_inputs = "original";
  std::string merge = "none", budget, plan;
  std::string score, repair;  // empty: by rule, see default_score and below
  std::vector<std::string> data;
  std::int64_t tokens = 262144;
  DataFlags data_flags;
  std::int64_t seq_len = 0;
  trim::TrimOptions options;
  trim::RidgeOptions ridge;

  // As given, or else ridge where there is data for it.
  trim::Repair repair_kind() const;
  // Whether --data has a reader.
  bool reads_data() const;
  trim::Merge merge_kind() const;
  // Options with the named values in; score, budget and condensers are left
  // out.
  trim::TrimOptions plan_options() const;
  trim::RidgeOptions ridge_options() const;
  // Throws UsageError on flags that contradict each other, and UserError on
  // values that no plan can have.
  void check(bool scores_given, bool plan_only) const;
};

void add_trim_flags(CLI::App& app, TrimFlags& flags);

// Whether a trim with these arguments would read --data if it were added. False
// too where they can't be parsed.
bool wants_data(std::vector<std::string> arguments);

}  // namespace fettle::cli
