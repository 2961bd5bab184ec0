// SPDX-License-Identifier: Apache-2.0
// A plan and what came of it, as one page: the frontier beside plain choices
// and what was measured, memory by part, widths and bits by layer, cost by
// domain.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "artifact/making.h"
#include "chain/candidate.h"
#include "chain/domains.h"
#include "chain/fit_plan.h"
#include "chain/plain.h"

namespace fettle::chain {

struct PlanPage {
  std::string model;
  const Engine& engine;
  const PriceTable& table;
  const FitPlan& chosen;
  const Footprint& footprint;
  const std::vector<FitPlan>& frontier;
  const std::vector<std::pair<PlainChoice, FitPlan>>& plain;
  std::int64_t budget = 0;
  std::vector<Domain> domains = {};  // none: files are not named by domain
  // What was carried out to calibrate by: bytes and KL, predicted and measured.
  std::vector<std::pair<const FitPlan*, double>> probes = {};
  // KL of the finished model, by file of held-out text.
  std::vector<std::pair<std::string, double>> measured = {};
  std::optional<std::int64_t> peak_bytes = {};  // that a run took
  artifact::Making making = {};
};

// What the page's charts draw: "frontier", "plain", "probes", "chosen" and
// "finished" as lists of {x: MiB, y: nats}; "layers" with widths and bits;
// "parts" of memory in MiB.
Json plan_page_data(const PlanPage& page);

void write_plan_page(const std::filesystem::path& file, const PlanPage& page);

}  // namespace fettle::chain
