// SPDX-License-Identifier: Apache-2.0
// report.html: what an analysis found, as one page that needs no network and
// prints well. Template: report.html beside this file (Mustache); charts: the
// embedded Chart.js.
#pragma once

#include <filesystem>
#include <string>

#include "artifact/making.h"
#include "artifact/score_file.h"

namespace fettle::analyze {

struct ReportOptions {
  // What the page is about, such as the model folder's name.
  std::string title;
  // Experts listed as the most and the least important.
  std::size_t listed = 10;
  artifact::Making making = {};
};

// The whole page as text.
std::string report_page(
    const artifact::ScoreFile& scores, const ReportOptions& options);

// Writes it to `file`.
void write_report(
    const std::filesystem::path& file,
    const artifact::ScoreFile& scores,
    const ReportOptions& options);

}  // namespace fettle::analyze
