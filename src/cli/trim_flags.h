// SPDX-License-Identifier: Apache-2.0
// The flags of a trim: what is cut, and what makes up for it.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/data_flags.h"
#include "export/target.h"
#include "trim/merge_plan.h"
#include "trim/plan.h"
#include "trim/repair.h"

namespace fettle::cli {

struct TrimFlags {
  // What the flags gave; named values as their names.
  std::string unit = "neuron", normalise = "none";
  std::string repair_inputs = "original";
  std::string merge = "none", budget, plan;
  std::string target = "fettle";  // --for
  // Empty: by rule, see default_score, plan_options and repair_kind.
  std::string score, repair, scope, widths;
  std::string stored;  // --stored; empty: keep where that can be
  std::optional<std::int64_t> round = {};
  std::vector<std::string> data;
  std::vector<std::string> eval_data;
  std::int64_t tokens = 262144;
  DataFlags data_flags;
  std::int64_t seq_len = 0;
  trim::TrimOptions options;
  trim::RidgeOptions ridge;

  // The repair given, or else ridge where there is data for it, and joint where
  // whole experts go: ridge would find nothing cut in those that stay.
  trim::Repair repair_kind() const;
  exporter::Target target_kind() const;
  // Whether the plan is made for codes that are kept as they are: asked for, or
  // of experts that only go whole.
  bool plans_kept(const model::ModelReader& reader) const;
  // Whether --data has a reader.
  bool reads_data() const;
  trim::Merge merge_kind() const;
  // Options with the named values and the budget in, and the shape that the
  // target wants; score, bytes and condensers are left out.
  trim::TrimOptions plan_options() const;
  trim::RidgeOptions ridge_options() const;
  // Throws UsageError on flags that contradict each other, and UserError on
  // values that no plan can have.
  void check(bool scores_given, bool plan_only) const;

 private:
  void check_target() const;
};

void add_trim_flags(CLI::App& app, TrimFlags& flags);

// Whether a trim with these arguments would read --data if it were added. False
// too where they can't be parsed.
bool wants_data(std::vector<std::string> arguments);

}  // namespace fettle::cli
