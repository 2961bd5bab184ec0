// SPDX-License-Identifier: Apache-2.0
#include "trim/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "artifact/report_parts.h"
#include "core/bytes.h"
#include "io/file.h"

namespace fettle {

extern const std::string_view trim_report_html;

namespace trim {
namespace {

namespace mustache = kainjow::mustache;

constexpr double kGone = -1;

// [E] of the untrimmed layer: the share of its neurons that an expert keeps.
std::vector<double> kept_shares(
    const model::LayerConfig& layer, const artifact::LayerPlan& plan) {
  std::vector<double> shares(layer.expert_widths.size(), kGone);
  for (const artifact::ExpertPlan& expert : plan.experts) {
    const std::int64_t width = layer.expert_widths[expert.expert];
    shares[expert.expert] = width == 0 ? 0.0
                                       : static_cast<double>(expert.width()) /
                                             static_cast<double>(width);
  }
  return shares;
}

// Experts that are gone, empty, in ten steps above that, and whole.
class Histogram {
 public:
  void add(double share) { ++counts_[slot(share)]; }

  Json to_json() const {
    Json labels = {"removed", "no neuron"};
    for (int i = 0; i < 10; ++i) {
      labels.push_back(fmt::format("{}\u2013{} %", 10 * i, 10 * i + 10));
    }
    labels.push_back("whole");
    return {{"labels", std::move(labels)}, {"counts", counts_}};
  }

 private:
  static std::size_t slot(double share) {
    if (share < 0) return 0;
    if (share == 0) return 1;
    if (share >= 1) return 12;
    return 2 + static_cast<std::size_t>(10 * share);
  }
  std::vector<std::int64_t> counts_ = std::vector<std::int64_t>(13, 0);
};

mustache::data size_row(
    const char* what, std::int64_t before, std::int64_t after) {
  mustache::data row;
  row["what"] = what;
  row["before"] = fmt::format("{}", before);
  row["after"] = fmt::format("{}", after);
  if (before > 0) {
    row["share"] = fmt::format(
        "{:.1f} %",
        100 * static_cast<double>(after) / static_cast<double>(before));
  }
  return row;
}

mustache::data text_row(
    const char* what, std::string before, std::string after) {
  mustache::data row;
  row["what"] = what;
  row["before"] = std::move(before);
  row["after"] = std::move(after);
  return row;
}

mustache::data sizes(const TrimResult& result) {
  using artifact::ModelSize;
  const ModelSize& a = result.before;
  const ModelSize& b = result.after;
  const auto widths = [](const ModelSize& size) {
    return fmt::format(
        "{}, {:g}, {}", size.min_width, size.median_width, size.max_width);
  };
  mustache::data rows{mustache::data::type::list};
  rows.push_back(size_row("parameters", a.parameters, b.parameters));
  rows.push_back(size_row(
      "active parameters, the most of a token",
      a.active_parameters,
      b.active_parameters));
  mustache::data bytes = size_row("weights", a.bytes, b.bytes);
  bytes["before"] = format_bytes(a.bytes);
  bytes["after"] = format_bytes(b.bytes);
  rows.push_back(bytes);
  rows.push_back(size_row("experts", a.experts, b.experts));
  rows.push_back(size_row("their neurons", a.neurons, b.neurons));
  rows.push_back(text_row("width: least, median, most", widths(a), widths(b)));
  rows.push_back(text_row(
      "experts without a neuron",
      std::to_string(a.zero_width),
      std::to_string(b.zero_width)));
  return rows;
}

mustache::data layer_row(const ReportInput& input, std::size_t l) {
  const model::LayerConfig& layer = input.config.layers[l];
  std::vector<std::int64_t> widths, empty;
  std::int64_t neurons = 0;
  for (const artifact::ExpertPlan& expert : input.plan.layers[l].experts) {
    widths.push_back(expert.width());
    neurons += expert.width();
    if (expert.width() == 0) empty.push_back(expert.expert);
  }
  std::ranges::sort(widths);
  mustache::data row;
  row["layer"] = std::to_string(l);
  row["experts"] = fmt::format("{} of {}", widths.size(), layer.num_experts());
  row["top_k"] = std::to_string(input.plan.layers[l].top_k);
  row["neurons"] = fmt::format("{} of {}", neurons, layer.total_width());
  row["share"] = fmt::format(
      "{:.1f} %",
      100.0 * static_cast<double>(neurons) /
          static_cast<double>(std::max<std::int64_t>(layer.total_width(), 1)));
  row["widths"] = widths.empty() ? "none"
                                 : fmt::format(
                                       "{}, {}, {}",
                                       widths.front(),
                                       widths[widths.size() / 2],
                                       widths.back());
  row["empty"] = empty.empty() ? "none" : artifact::format_spans(empty);
  if (input.result.repair) {
    row["error"] =
        fmt::format("{:.1f} %", 100 * input.result.repair->error_left.at(l));
  }
  return row;
}

// "score obs, scope global, unit neuron, keep 0.5": what is plain to read.
std::string choices(const artifact::TrimPlan& plan) {
  std::string text;
  for (const char* name :
       {"score", "scope", "unit", "widths", "keep", "budget", "round"}) {
    if (!plan.options.contains(name)) continue;
    const Json& value = plan.options[name];
    text += fmt::format(
        "{}{} {}",
        text.empty() ? "" : ", ",
        name,
        value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text.empty() ? "A plan from elsewhere" : text;
}

}  // namespace

Json report_data(const ReportInput& input) {
  Json rows = Json::array();
  Histogram histogram;
  for (std::size_t l = 0; l < input.config.layers.size(); ++l) {
    Json row = Json::array();
    if (input.config.layers[l].sparse) {
      for (const double share :
           kept_shares(input.config.layers[l], input.plan.layers[l])) {
        row.push_back(std::round(share * 1e4) / 1e4);
        histogram.add(share);
      }
    }
    rows.push_back(std::move(row));
  }
  Json error;
  if (input.result.repair) {
    error = Json::array();
    for (const double left : input.result.repair->error_left) {
      error.push_back(std::round(left * 1e4) / 1e2);
    }
  }
  return {
      {"kept", std::move(rows)},
      {"histogram", histogram.to_json()},
      {"error_left", std::move(error)}};
}

std::string report_page(const ReportInput& input) {
  mustache::data layers{mustache::data::type::list};
  for (std::size_t l = 0; l < input.config.layers.size(); ++l) {
    if (input.config.layers[l].sparse) layers.push_back(layer_row(input, l));
  }
  mustache::data view;
  view["title"] = input.title;
  view["choices"] = choices(input.plan);
  view["repair"] = std::string(name_of(input.repair));
  view["sizes"] = sizes(input.result);
  view["layers"] = std::move(layers);
  view["repaired"] = input.result.repair.has_value();
  if (const auto& repair = input.result.repair) {
    view["tokens"] = std::to_string(repair->tokens);
    view["refitted"] = std::to_string(repair->refitted);
    view["scarce"] = std::to_string(repair->scarce);
    view["unhit"] = std::to_string(repair->unhit);
  }
  return artifact::render_page(
      {trim_report_html,
       std::move(view),
       report_data(input),
       input.making,
       input.quality});
}

void write_report(const std::filesystem::path& file, const ReportInput& input) {
  io::write_file(file, report_page(input));
}

}  // namespace trim
}  // namespace fettle
