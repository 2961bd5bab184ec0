// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tune/report.h"

namespace fettle::tune {

namespace {

Json at_or_null(const Json& object, const char* key) {
  return object.contains(key) ? object[key] : Json();
}

// `key` of every line; {name: list} of an object's names.
Json column(const std::vector<Json>& lines, const char* key) {
  Json values = Json::array();
  for (const Json& line : lines) values.push_back(at_or_null(line, key));
  return values;
}

Json columns(const std::vector<Json>& lines, const char* key) {
  Json named = Json::object();
  for (const Json& line : lines) {
    if (!line.contains(key)) continue;
    for (const auto& [name, value] : line[key].items()) {
      named[name] = Json::array();
    }
  }
  for (const Json& line : lines) {
    for (auto& [name, values] : named.items()) {
      const Json entry = at_or_null(line, key);
      values.push_back(
          entry.is_object() && entry.contains(name) ? entry[name] : Json());
    }
  }
  return named;
}

// Lines of evaluations, the one before any step too.
Json held_out(const std::vector<Json>& metrics) {
  std::vector<Json> losses;
  Json steps = Json::array();
  for (const Json& line : metrics) {
    if (!line.contains("eval")) continue;
    Json files = Json::object();
    for (const auto& [name, score] : line["eval"].items()) {
      files[name] = score["nll"];
    }
    losses.push_back({{"files", std::move(files)}});
    steps.push_back(line["step"]);
  }
  return {{"steps", std::move(steps)}, {"files", columns(losses, "files")}};
}

Json shares(const Json& counts) {
  double sum = 0.0;
  for (const Json& count : counts) sum += count.get<double>();
  Json row = Json::array();
  for (const Json& count : counts) {
    row.push_back(
        sum > 0.0 ? std::round(count.get<double>() / sum * 1e5) / 1e5 : 0.0);
  }
  return row;
}

Json last_choices(const std::vector<Json>& metrics) {
  for (auto line = metrics.rbegin(); line != metrics.rend(); ++line) {
    if (!line->contains("choices")) continue;
    Json rows = Json::array();
    bool any = false;
    for (const Json& counts : (*line)["choices"]) {
      any = any || !counts.empty();
      rows.push_back(shares(counts));
    }
    if (!any) return {};
    return {{"step", (*line)["step"]}, {"shares", std::move(rows)}};
  }
  return {};
}

}  // namespace

std::vector<TrainedPart> trained_by_layer(
    const Parts& parts, std::int64_t layers) {
  std::vector<TrainedPart> trained;
  for (const auto& part : parts) {
    TrainedPart row{std::string(part->name()), {}, part->trained_globals()};
    for (std::int64_t l = 0; l < layers; ++l) {
      row.weights.push_back(part->trained_weights(l));
    }
    trained.push_back(std::move(row));
  }
  return trained;
}

Json report_data(const ReportInput& input) {
  std::vector<Json> steps;
  for (const Json& line : input.metrics) {
    if (line.contains("loss")) steps.push_back(line);
  }
  const bool taught = !steps.empty() && steps.front().contains("kl");
  Json trained = Json::array();
  for (const TrainedPart& part : input.trained) {
    trained.push_back(
        {{"name", part.name},
         {"weights", part.weights},
         {"outside", part.outside}});
  }
  return {
      {"steps", column(steps, "step")},
      {"loss", column(steps, "loss")},
      {"nll", taught ? column(steps, "nll") : Json()},
      {"kl", taught ? column(steps, "kl") : Json()},
      {"grad_norm", column(steps, "grad_norm")},
      {"clip_norm", input.options.clip_norm},
      {"lr", columns(steps, "lr")},
      {"tokens_per_second", column(steps, "tokens_per_second")},
      {"seconds", columns(steps, "seconds")},
      {"io_seconds", columns(steps, "io_seconds")},
      {"held_out", held_out(input.metrics)},
      {"best_step",
       input.result.best_step > 0 ? Json(input.result.best_step) : Json()},
      {"trained", std::move(trained)},
      {"choices", last_choices(input.metrics)}};
}

}  // namespace fettle::tune
