// SPDX-License-Identifier: Apache-2.0
// What the report pages of all stages share: style, charts that follow the
// reader's light or dark scheme, a table of numbers behind each chart, the
// quality that was measured, and at the end how the result was made. A page is
// one file that needs no network.
#pragma once

#include <kainjow/mustache.hpp>
#include <string>
#include <string_view>

#include "artifact/making.h"
#include "core/json.h"

namespace fettle {

extern const std::string_view chart_js;        // Chart.js
extern const std::string_view report_css;      // report.css
extern const std::string_view report_charts;   // report_charts.js
extern const std::string_view report_made;     // report_made.html
extern const std::string_view report_quality;  // report_quality.html

namespace artifact {

struct ReportPage {
  std::string_view html;         // a Mustache template
  kainjow::mustache::data view;  // what the template names
  Json data;                     // what its script reads as #data
  const Making& making;
  // {"files": [{"file", "tokens", "nll_before", "nll", "kl", "top1"}], and the
  // means over files}, or null where nothing was measured.
  Json quality = nullptr;
};

// The whole page as text. The template finds, beside its view, {{{head}}} (what
// comes before the title), {{version}}, {{{css}}}, {{{quality}}} (empty without
// any), {{{made}}} and {{{scripts}}}.
std::string render_page(ReportPage page);

// JSON as the text of a script element, which it can't end.
std::string script_text(const Json& json);

}  // namespace artifact
}  // namespace fettle
