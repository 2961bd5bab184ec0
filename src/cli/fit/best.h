// SPDX-License-Identifier: Apache-2.0
// The best plan for a budget by data, and the model that it makes.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "chain/fit_request.h"
#include "chain/fit_source.h"
#include "cli/command.h"
#include "cli/data_flags.h"

namespace fettle::cli {

struct BestFlags {
  std::vector<std::string> data, held;
  DataFlags data_flags;
  std::int64_t tokens = 131072;
  std::int64_t seq_len = 0;
  std::string objective = "memory";
  std::string calibrate = "measured";
  std::string out, recipe;
  bool plan_only = false;
  bool tune = false;
  std::int64_t tune_steps = 0;  // 0: as tune chooses

  // Throws UsageError on options that don't go together.
  void check() const;
};

void add_best_flags(CLI::App& app, BestFlags& flags);

struct BestRequest {
  const BestFlags& flags;
  const chain::FitSource& source;
  const chain::FitRequest& fit;  // settled
  std::string model;
  std::string report;   // page to write; empty: none
  double keep_min = 0;  // least share of the experts' neurons
};

// Analyzes, measures and plans in the folder --out, which keeps what was done:
// the same command goes on where it was stopped. Then, unless only the plan is
// wanted, carries it out and measures the result.
Outcome best_fit(Session& session, const BestRequest& request);

}  // namespace fettle::cli
