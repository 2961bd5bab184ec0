// SPDX-License-Identifier: Apache-2.0
#include "artifact/trim_plan.h"

#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

constexpr std::int64_t kFormat = 1;

LayerPlan read_layer(const JsonObject& json) {
  LayerPlan layer;
  layer.top_k = json.integer("top_k");
  const Json& rows = json.at("experts");
  if (!rows.is_array()) json.refuse("experts", "expected a list");
  for (const Json& row : rows) {
    const JsonObject entry(row, "trim", json.subject() + ": experts");
    ExpertPlan expert;
    expert.expert = entry.integer("expert");
    if (expert.expert < 0 || (!layer.experts.empty() &&
                              expert.expert <= layer.experts.back().expert)) {
      json.refuse("experts", "expected ascending expert numbers");
    }
    expert.neurons = parse_spans(
        entry.string("neurons"),
        fmt::format("{}: expert {}", json.subject(), expert.expert));
    layer.experts.push_back(std::move(expert));
  }
  return layer;
}

[[noreturn]] void misfit(std::size_t layer, const std::string& why) {
  throw UserError(
      "trim",
      fmt::format("layer {}", layer),
      why + "; plan again with scores of this model");
}

void check_layer(
    const LayerPlan& plan, const model::LayerConfig& layer, std::size_t l) {
  if (!layer.sparse) {
    if (!plan.experts.empty()) {
      misfit(l, "the plan has experts, but the model's layer is dense");
    }
    return;
  }
  for (const ExpertPlan& expert : plan.experts) {
    if (expert.expert >= layer.num_experts()) {
      misfit(
          l,
          fmt::format(
              "the plan keeps expert {} of {}",
              expert.expert,
              layer.num_experts()));
    }
    const std::int64_t width = layer.expert_widths[expert.expert];
    if (!expert.neurons.empty() && expert.neurons.back() >= width) {
      misfit(
          l,
          fmt::format(
              "the plan keeps neuron {} of expert {}, which has {}",
              expert.neurons.back(),
              expert.expert,
              width));
    }
  }
  const auto kept = static_cast<std::int64_t>(plan.experts.size());
  if (plan.top_k < 1 || kept < plan.top_k) {
    misfit(
        l,
        fmt::format(
            "expected at least top_k = {} kept experts, found {}",
            plan.top_k,
            kept));
  }
}

}  // namespace

std::vector<std::int64_t> LayerPlan::kept_experts() const {
  std::vector<std::int64_t> indices;
  for (const ExpertPlan& expert : experts) indices.push_back(expert.expert);
  return indices;
}

Json TrimPlan::to_json() const {
  Json rows = Json::array();
  for (const LayerPlan& layer : layers) {
    Json experts = Json::array();
    for (const ExpertPlan& expert : layer.experts) {
      experts.push_back(
          {{"expert", expert.expert},
           {"neurons", format_spans(expert.neurons)}});
    }
    rows.push_back({{"top_k", layer.top_k}, {"experts", std::move(experts)}});
  }
  return {
      {"format", kFormat},
      {"model_fingerprint", model_fingerprint},
      {"options", options},
      {"layers", std::move(rows)}};
}

TrimPlan TrimPlan::from_json(const Json& json, const std::string& subject) {
  const JsonObject object(json, "trim", subject);
  if (object.integer("format") != kFormat) {
    object.refuse(
        "format",
        fmt::format(
            "expected {}, found {}; plan again with this version",
            kFormat,
            object.integer("format")));
  }
  TrimPlan plan;
  plan.model_fingerprint = object.string("model_fingerprint");
  plan.options = object.object("options").json();
  object.object("options").string_or("score", "");
  const Json& rows = object.at("layers");
  if (!rows.is_array()) object.refuse("layers", "expected a list");
  for (std::size_t l = 0; l < rows.size(); ++l) {
    plan.layers.push_back(read_layer(
        JsonObject(rows[l], "trim", fmt::format("{}: layer {}", subject, l))));
  }
  return plan;
}

void TrimPlan::save(const std::filesystem::path& file) const {
  io::write_file(file, to_json().dump(1) + "\n");
}

TrimPlan TrimPlan::load(const std::filesystem::path& file) {
  return from_json(read_json(file, "trim"), file.string());
}

void TrimPlan::check_against(const model::ModelConfig& config) const {
  if (layers.size() != config.layers.size()) {
    throw UserError(
        "trim",
        "plan",
        fmt::format(
            "expected {} layers, found {}; plan again with scores of this "
            "model",
            config.layers.size(),
            layers.size()));
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    check_layer(layers[l], config.layers[l], l);
  }
}

}  // namespace fettle::artifact
