// SPDX-License-Identifier: Apache-2.0
// What a fit by data found, for people and for programs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "chain/candidate.h"
#include "chain/domains.h"
#include "chain/frontier.h"
#include "chain/plain.h"
#include "cli/fit/probes.h"

namespace fettle::cli {

struct FitResult {
  std::int64_t budget = 0;  // bytes of the weights
  chain::FitPlan chosen = {};
  chain::Footprint footprint = {};  // of the chosen, in the engine
  std::vector<chain::FitPlan> frontier = {};
  std::vector<std::pair<chain::PlainChoice, chain::FitPlan>> plain = {};
  double chosen_cost = 1;  // that the chosen and the frontier are told with
  chain::Calibration calibration = {};
  Probes probes = {};  // none: the calibration is the usual one
  std::vector<chain::Domain> domains = {};
  std::string model = {};     // folder that was made; empty: none yet
  std::string exported = {};  // folder for the engine, where it is another
  Json stages = nullptr;
  Json measured = nullptr;  // what eval found, where held-out text was given
  Json memory = nullptr;    // what a run took beside what was promised

  Json to_json() const;
  std::string text() const;
};

}  // namespace fettle::cli
