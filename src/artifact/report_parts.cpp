// SPDX-License-Identifier: Apache-2.0
#include "artifact/report_parts.h"

#include <fmt/format.h>

#include "artifact/manifest.h"
#include "core/error.h"

namespace fettle::artifact {
namespace {

namespace mustache = kainjow::mustache;

// What all pages begin with, up to their titles.
constexpr const char* kHead = R"(<!doctype html>
<!-- SPDX-License-Identifier: Apache-2.0 -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">)";

std::string made_section(const Making& making) {
  if (making.command.empty()) return "";
  mustache::mustache section{std::string(report_made)};
  FETTLE_ASSERT(section.is_valid());
  mustache::data facts{mustache::data::type::list};
  for (const auto& [what, value] : making.facts) {
    mustache::data row;
    row["what"] = what;
    row["value"] = value;
    facts.push_back(row);
  }
  mustache::data view;
  view["command"] = making.command;
  view["facts"] = std::move(facts);
  return section.render(view);
}

mustache::data quality_row(const std::string& file, const Json& of) {
  const auto number = [&](const char* key) { return of[key].get<double>(); };
  mustache::data row;
  row["file"] = file;
  row["tokens"] = of.contains("tokens")
                      ? std::to_string(of["tokens"].get<std::int64_t>())
                      : std::string();
  row["before"] = fmt::format("{:.4f}", number("nll_before"));
  row["after"] = fmt::format("{:.4f}", number("nll"));
  row["difference"] =
      fmt::format("{:+.4f}", number("nll") - number("nll_before"));
  row["kl"] = fmt::format("{:.4f}", number("kl"));
  row["top1"] = fmt::format("{:.1f} %", 100 * number("top1"));
  return row;
}

std::string quality_section(const Json& quality) {
  if (quality.is_null()) return "";
  mustache::mustache section{std::string(report_quality)};
  FETTLE_ASSERT(section.is_valid());
  mustache::data rows{mustache::data::type::list};
  for (const Json& file : quality["files"]) {
    rows.push_back(quality_row(file["file"].get<std::string>(), file));
  }
  if (quality["files"].size() > 1) rows.push_back(quality_row("all", quality));
  mustache::data view;
  view["rows"] = std::move(rows);
  return section.render(view);
}

}  // namespace

std::string script_text(const Json& json) {
  // A string of JSON may spell "<" as an escape; in a script element "</script"
  // ends it, and "<!--" changes how the rest is read.
  std::string text;
  for (const char c :
       json.dump(-1, ' ', false, Json::error_handler_t::replace)) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

std::string render_page(ReportPage page) {
  mustache::mustache whole{std::string(page.html)};
  FETTLE_ASSERT(whole.is_valid());
  page.view["head"] = std::string(kHead);
  page.view["version"] = std::string(version());
  page.view["css"] = std::string(report_css);
  page.view["quality"] = quality_section(page.quality);
  page.view["made"] = made_section(page.making);
  page.view["scripts"] = fmt::format(
      "<script type=\"application/json\" id=\"data\">{}</script>\n"
      "<script>{}</script>\n<script>{}</script>",
      script_text(page.data),
      chart_js,
      report_charts);
  return whole.render(page.view);
}

}  // namespace fettle::artifact
