// SPDX-License-Identifier: Apache-2.0
#include "analyze/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <kainjow/mustache.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "analyze/layer_sums.h"
#include "artifact/manifest.h"
#include "core/error.h"
#include "io/file.h"

namespace fettle {

extern const std::string_view chart_js;
extern const std::string_view report_html;

namespace analyze {
namespace {

namespace mustache = kainjow::mustache;

// Four significant digits: the page holds a number per expert and score.
double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const double unit =
      std::pow(10.0, std::floor(std::log10(std::abs(value))) - 3);
  return std::round(value / unit) * unit;
}

// One number per expert: an expert's score, or the sum of its neurons'.
std::vector<double> importance(
    const artifact::LayerScores& layer, const std::string& name) {
  std::vector<double> values;
  if (const auto found = layer.expert.find(name); found != layer.expert.end()) {
    const at::Tensor scores = found->second.to(at::kDouble);
    for (std::int64_t e = 0; e < layer.num_experts(); ++e) {
      values.push_back(scores[e].item<double>());
    }
    return values;
  }
  const at::Tensor scores = layer.neuron.at(name).to(at::kDouble);
  const auto offsets = neuron_offsets(layer.widths);
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    values.push_back(
        scores.slice(0, offsets[e], offsets[e + 1]).sum().item<double>());
  }
  return values;
}

Json heat_map(const artifact::ScoreFile& scores, const std::string& name) {
  Json rows = Json::array();
  for (const artifact::LayerScores& layer : scores.layers) {
    Json row = Json::array();
    if (!layer.widths.empty()) {
      for (const double value : importance(layer, name)) {
        row.push_back(rounded(value));
      }
    }
    rows.push_back(std::move(row));
  }
  return {{"name", name}, {"rows", std::move(rows)}};
}

// Share of its layer's routed tokens that each expert got.
Json loads(const artifact::ScoreFile& scores) {
  Json rows = Json::array();
  for (const artifact::LayerScores& layer : scores.layers) {
    Json row = Json::array();
    if (!layer.widths.empty()) {
      const double total = std::max(layer.tokens.sum().item<double>(), 1.0);
      for (std::int64_t e = 0; e < layer.num_experts(); ++e) {
        row.push_back(rounded(layer.tokens[e].item<double>() / total));
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

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

// JSON inside a script element must not end it.
std::string script_text(const Json& json) {
  std::string text = json.dump();
  for (std::size_t at = 0; (at = text.find("</", at)) != std::string::npos;) {
    text.replace(at, 2, "<\\/");
  }
  return text;
}

}  // namespace

std::string report_page(
    const artifact::ScoreFile& scores, const ReportOptions& options) {
  std::vector<std::string> names = scores.neuron_scores();
  for (std::string& name : scores.expert_scores()) {
    names.push_back(std::move(name));
  }
  Json data = {{"scores", Json::array()}, {"load", loads(scores)}};
  data["entropy"] = Json::array();
  std::int64_t experts = 0;
  std::int64_t neurons = 0;
  for (const artifact::LayerScores& layer : scores.layers) {
    data["entropy"].push_back(
        layer.widths.empty() ? Json() : Json(rounded(layer.router_entropy)));
    experts += layer.num_experts();
    neurons += layer.total_width();
  }
  for (const std::string& name : names) {
    data["scores"].push_back(heat_map(scores, name));
  }
  mustache::mustache page{std::string(report_html)};
  FETTLE_ASSERT(page.is_valid());
  mustache::data view;
  view["title"] = options.title;
  view["version"] = std::string(artifact::version());
  view["layers"] = std::to_string(scores.layers.size());
  view["experts"] = std::to_string(experts);
  view["neurons"] = std::to_string(neurons);
  view["tokens"] = std::to_string(scores.tokens);
  view["tables"] = tables(scores, names, options.listed);
  view["data"] = script_text(data);
  view["chart_js"] = std::string(chart_js);
  return page.render(view);
}

void write_report(
    const std::filesystem::path& file,
    const artifact::ScoreFile& scores,
    const ReportOptions& options) {
  io::write_file(file, report_page(scores, options));
}

}  // namespace analyze
}  // namespace fettle
