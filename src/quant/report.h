// SPDX-License-Identifier: Apache-2.0
// report.html of a quantization: what weights take now and what that costs, as
// one page that needs no network and prints well. Template: report.html beside
// this file (Mustache); style and charts are those of all reports.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "artifact/making.h"
#include "core/json.h"
#include "quant/quantize.h"

namespace fettle::quant {

// The records of all layers together, by role.
std::map<std::string, RoleRecord> totals(const QuantResult& result);

// What the page's charts draw: "layers", their numbers; "roles", for each its
// name, and by layer "bits" a weight and "error" in percent of the output, null
// where a layer has no such weight; "scarce" and "unseen", by layer the
// matrices of experts that few tokens or none chose; "expert_bits", maps of
// {"name", "bits": a row a layer of each expert's bits a weight}, one for the
// roles that are alike everywhere.
Json report_data(const QuantResult& result);

struct ReportInput {
  std::string title;  // such as the model folder's name
  const QuantResult& result;
  artifact::Making making = {};
  Json quality = nullptr;  // as artifact::ReportPage has it
};

// Writes the page to `file`.
void write_report(const std::filesystem::path& file, const ReportInput& input);

}  // namespace fettle::quant
