// SPDX-License-Identifier: Apache-2.0
// What the report pages of all stages share, so that they look alike: embedded
// texts, which a template puts where it wants them unescaped.
#pragma once

#include <string>
#include <string_view>

#include "core/json.h"

namespace fettle {

extern const std::string_view chart_js;       // Chart.js
extern const std::string_view report_css;     // report.css
extern const std::string_view report_charts;  // report_charts.js

namespace artifact {

// JSON as the text of a script element, which it can't end.
std::string script_text(const Json& json);

}  // namespace artifact
}  // namespace fettle
