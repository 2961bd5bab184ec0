// SPDX-License-Identifier: Apache-2.0
// report.html of a trim: what was cut and what is left, as one page that needs
// no network and prints well. Template: report.html beside this file
// (Mustache); style and charts are those of all reports.
#pragma once

#include <filesystem>
#include <string>

#include "artifact/making.h"
#include "artifact/trim_plan.h"
#include "core/json.h"
#include "model/family/model_config.h"
#include "trim/slice.h"

namespace fettle::trim {

struct ReportInput {
  std::string title;                 // such as the model folder's name
  const model::ModelConfig& config;  // untrimmed
  const artifact::TrimPlan& plan;    // of that model
  const TrimResult& result;
  Repair repair = Repair::kNone;
  artifact::Making making = {};
  Json quality = nullptr;  // as artifact::ReportPage has it
};

// What the page's charts draw: "kept", a row a layer of the share of neurons
// that each expert keeps, -1 for one that is gone; "histogram", experts by that
// share; "error_left" in percent by layer, null without a repair.
Json report_data(const ReportInput& input);

// The whole page as text.
std::string report_page(const ReportInput& input);

// Writes it to `file`.
void write_report(const std::filesystem::path& file, const ReportInput& input);

}  // namespace fettle::trim
