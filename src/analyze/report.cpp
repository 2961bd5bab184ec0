// SPDX-License-Identifier: Apache-2.0
#include "analyze/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "analyze/cut_advice.h"
#include "analyze/report_data.h"
#include "analyze/score_method.h"
#include "artifact/report_parts.h"
#include "io/file.h"

namespace fettle {

extern const std::string_view report_html;

namespace analyze {
namespace {

namespace mustache = kainjow::mustache;

struct RankedExpert {
  double value;
  std::size_t layer;
  std::int64_t expert;
};

std::vector<RankedExpert> rank_experts(
    const artifact::ScoreFile& scores, const std::string& name) {
  std::vector<RankedExpert> ranked;
  for (std::size_t l = 0; l < scores.layers.size(); ++l) {
    if (scores.layers[l].widths.empty()) continue;
    const std::vector<double> values = importance(scores.layers[l], name);
    for (std::size_t e = 0; e < values.size(); ++e) {
      ranked.push_back({values[e], l, static_cast<std::int64_t>(e)});
    }
  }
  std::ranges::stable_sort(
      ranked, [](const RankedExpert& a, const RankedExpert& b) {
        return a.value > b.value;
      });
  return ranked;
}

mustache::data table(
    const artifact::ScoreFile& scores,
    std::span<const RankedExpert> ranked,
    double total) {
  mustache::data rows{mustache::data::type::list};
  for (const RankedExpert& entry : ranked) {
    const artifact::LayerScores& layer = scores.layers[entry.layer];
    mustache::data row;
    row["layer"] = std::to_string(entry.layer);
    row["expert"] = std::to_string(entry.expert);
    row["value"] = fmt::format("{:.4g}", entry.value);
    row["share"] =
        fmt::format("{:.2f} %", total > 0 ? 100 * entry.value / total : 0.0);
    row["width"] = std::to_string(layer.widths[entry.expert]);
    row["tokens"] =
        std::to_string(layer.tokens[entry.expert].item<std::int64_t>());
    rows.push_back(row);
  }
  return rows;
}

mustache::data tables(
    const artifact::ScoreFile& scores,
    const std::vector<std::string>& names,
    std::size_t listed) {
  mustache::data list{mustache::data::type::list};
  for (const std::string& name : names) {
    const std::vector<RankedExpert> ranked = rank_experts(scores, name);
    double total = 0;
    for (const RankedExpert& entry : ranked) total += entry.value;
    const std::size_t count = std::min(listed, ranked.size());
    const std::span<const RankedExpert> all(ranked);
    mustache::data entry;
    entry["score"] = name;
    entry["top"] = table(scores, all.first(count), total);
    entry["bottom"] = table(scores, all.last(count), total);
    list.push_back(entry);
  }
  return list;
}

// A square table a score: what each two runs share of their better halves.
mustache::data overlap_tables(const Json& overlap) {
  mustache::data list{mustache::data::type::list};
  const Json& names = overlap["names"];
  for (const Json& score : overlap["scores"]) {
    mustache::data heads{mustache::data::type::list};
    mustache::data rows{mustache::data::type::list};
    for (std::size_t a = 0; a < names.size(); ++a) {
      heads.push_back(mustache::data("name", names[a].get<std::string>()));
      mustache::data cells{mustache::data::type::list};
      for (std::size_t b = 0; b < names.size(); ++b) {
        double share = 1;
        for (const Json& pair : score["pairs"]) {
          if (pair["a"] == std::min(a, b) && pair["b"] == std::max(a, b)) {
            share = pair["all"].get<double>();
          }
        }
        mustache::data cell;
        cell["share"] = fmt::format("{:.1f} %", 100 * share);
        // From white at no overlap to blue at a whole one.
        cell["colour"] = fmt::format(
            "rgba(74, 111, 165, {:.2f})", std::clamp(share, 0.0, 1.0));
        cell["ink"] = share > 0.85 ? "#fff" : "#1b2430";
        cells.push_back(cell);
      }
      mustache::data row;
      row["name"] = names[a].get<std::string>();
      row["cells"] = std::move(cells);
      rows.push_back(row);
    }
    mustache::data entry;
    entry["score"] = score["name"].get<std::string>();
    entry["heads"] = std::move(heads);
    entry["rows"] = std::move(rows);
    list.push_back(entry);
  }
  return list;
}

// What each score measures, and in which units.
mustache::data definitions(const std::vector<std::string>& names) {
  mustache::data list{mustache::data::type::list};
  for (const std::string& name : names) {
    const auto methods = score_methods();
    const auto method =
        std::ranges::find(methods, std::string_view(name), &ScoreMethod::name);
    if (method == methods.end()) continue;  // of another version
    mustache::data row;
    row["score"] = name;
    row["meaning"] = std::string(method->help);
    row["measured_in"] = std::string(method->measured_in);
    list.push_back(row);
  }
  return list;
}

}  // namespace

std::string report_page(
    const artifact::ScoreFile& scores, const ReportOptions& options) {
  const std::vector<std::string> names = scores.all_scores();
  const Json data = report_data(scores);
  std::int64_t experts = 0;
  std::int64_t neurons = 0;
  for (const artifact::LayerScores& layer : scores.layers) {
    experts += layer.num_experts();
    neurons += layer.total_width();
  }
  mustache::data view;
  view["title"] = options.title;
  view["layers"] = std::to_string(scores.layers.size());
  view["experts"] = std::to_string(experts);
  view["neurons"] = std::to_string(neurons);
  view["tokens"] = std::to_string(scores.tokens);
  view["overlaps"] = overlap_tables(data["overlap"]);
  view["has_overlaps"] = !data["overlap"]["scores"].empty();
  view["has_neurons"] = !data["kept"].empty();
  view["has_files"] = data["by_file"]["names"].size() > 1;
  view["costed"] = !data["cost"].empty();
  mustache::data advice{mustache::data::type::list};
  for (const CutCurve& curve : cut_curves(scores)) {
    advice.push_back(mustache::data("text", curve.text()));
  }
  view["advice"] = std::move(advice);
  view["definitions"] = definitions(names);
  view["tables"] = tables(scores, names, options.listed);
  return artifact::render_page(
      {report_html, std::move(view), data, options.making});
}

void write_report(
    const std::filesystem::path& file,
    const artifact::ScoreFile& scores,
    const ReportOptions& options) {
  io::write_file(file, report_page(scores, options));
}

}  // namespace analyze
}  // namespace fettle
