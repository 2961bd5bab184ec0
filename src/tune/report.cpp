// SPDX-License-Identifier: Apache-2.0
#include "tune/report.h"

#include <fmt/format.h>

#include <numeric>
#include <string_view>
#include <utility>

#include "artifact/report_parts.h"
#include "io/file.h"

namespace fettle {

extern const std::string_view tune_report_html;

namespace tune {
namespace {

namespace mustache = kainjow::mustache;

std::string duration(double seconds) {
  if (seconds < 100.0) return fmt::format("{:.1f} s", seconds);
  if (seconds < 6000.0) return fmt::format("{:.0f} min", seconds / 60.0);
  return fmt::format("{:.1f} h", seconds / 3600.0);
}

double number(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_number()
             ? object[key].get<double>()
             : 0.0;
}

// What a step's seconds are made up of.
constexpr const char* kKinds[] = {
    "prepare", "forward", "backward", "update", "eval"};

mustache::data row(const char* what, std::string value) {
  mustache::data data;
  data["what"] = what;
  data["value"] = std::move(value);
  return data;
}

// Over all processes that worked on the run.
mustache::data summary(const ReportInput& input) {
  double seconds = 0.0;
  double tokens = 0.0;
  std::string first = "none";
  std::string last = "none";
  for (const Json& line : input.metrics) {
    for (const char* kind : kKinds) {
      if (line.contains("seconds")) seconds += number(line["seconds"], kind);
    }
    tokens += number(line, "tokens");
    if (!line.contains("loss")) continue;
    last = fmt::format("{:.4f}", number(line, "loss"));
    if (first == "none") first = last;
  }
  std::int64_t weights = 0;
  for (const TrainedPart& part : input.trained) {
    weights +=
        std::accumulate(part.weights.begin(), part.weights.end(), part.outside);
  }
  mustache::data rows{mustache::data::type::list};
  rows.push_back(row("method", input.options.method));
  rows.push_back(
      row("steps",
          fmt::format(
              "{}{}",
              input.result.steps,
              input.result.stopped_early
                  ? fmt::format(
                        " of {}, ended early: {} evaluations without a better "
                        "one",
                        input.options.steps,
                        input.options.patience)
                  : "")));
  if (input.result.best_step > 0) {
    rows.push_back(
        row("the adapter",
            fmt::format("of step {}, the best", input.result.best_step)));
  }
  rows.push_back(row("peak learning rate", rates_text(input.result)));
  if (input.result.skipped_steps > 0) {
    rows.push_back(
        row("steps skipped, without a finite loss or gradient",
            fmt::format("{}", input.result.skipped_steps)));
  }
  if (input.result.masked_sequences > 0) {
    rows.push_back(
        row("sequences left out, all labels masked",
            fmt::format("{}", input.result.masked_sequences)));
  }
  rows.push_back(row("weights trained", fmt::format("{}", weights)));
  rows.push_back(row("tokens", fmt::format("{:.0f}", tokens)));
  rows.push_back(row("time", duration(seconds)));
  rows.push_back(row("loss of the first step", first));
  rows.push_back(row("of the last", last));
  return rows;
}

// The evaluation of the adapter that the run leaves, and the one before it.
mustache::data held_out_rows(const ReportInput& input) {
  const Json* before = nullptr;
  const Json* after = nullptr;
  for (const Json& line : input.metrics) {
    if (!line.contains("eval")) continue;
    const auto step = line["step"].get<std::int64_t>();
    if (step == 0) before = &line["eval"];
    if (step > 0 &&
        (input.result.best_step == 0 || step == input.result.best_step)) {
      after = &line["eval"];
    }
  }
  mustache::data rows{mustache::data::type::list};
  if (after == nullptr) return rows;
  for (const auto& [name, score] : after->items()) {
    const double nll = number(score, "nll");
    mustache::data data;
    data["name"] = name;
    data["tokens"] = fmt::format("{:.0f}", number(score, "tokens"));
    data["after"] = fmt::format("{:.4f}", nll);
    if (before != nullptr && before->contains(name)) {
      const double was = number((*before)[name], "nll");
      data["before"] = fmt::format("{:.4f}", was);
      data["change"] = fmt::format("{:+.4f}", nll - was);
    }
    rows.push_back(data);
  }
  return rows;
}

mustache::data part_rows(const ReportInput& input) {
  mustache::data rows{mustache::data::type::list};
  for (const TrainedPart& part : input.trained) {
    const auto weights =
        std::accumulate(part.weights.begin(), part.weights.end(), part.outside);
    const auto layers = std::ranges::count_if(
        part.weights, [](std::int64_t count) { return count > 0; });
    mustache::data data;
    data["name"] = part.name;
    data["weights"] = fmt::format("{}", weights);
    data["layers"] = fmt::format(
        "{} of {}{}",
        layers,
        part.weights.size(),
        part.outside > 0 ? " and outside" : "");
    rows.push_back(data);
  }
  return rows;
}

}  // namespace

std::string report_page(const ReportInput& input) {
  const Json data = report_data(input);
  mustache::data view;
  view["title"] = input.title;
  view["summary"] = summary(input);
  view["judged"] = !data["held_out"]["steps"].empty();
  view["held_out"] = held_out_rows(input);
  view["taught"] = !data["kl"].is_null();
  view["parts"] = part_rows(input);
  view["routed"] = !data["choices"].is_null();
  if (!data["choices"].is_null()) {
    view["choices_step"] = data["choices"]["step"].dump();
  }
  return artifact::render_page(
      {tune_report_html, std::move(view), data, input.making});
}

void write_report(const std::filesystem::path& file, const ReportInput& input) {
  io::write_file(file, report_page(input));
}

}  // namespace tune
}  // namespace fettle
