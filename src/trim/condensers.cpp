// SPDX-License-Identifier: Apache-2.0
#include "trim/condensers.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace fettle::trim {
namespace {

constexpr const char* kKey = "condensers";

[[noreturn]] void refuse_condensers(
    const std::string& subject, const std::string& why) {
  throw UserError("trim", subject + ": condensers", why);
}

}  // namespace

Condensers parse_condensers(
    const Json& json,
    const model::ModelConfig& config,
    const std::string& subject) {
  if (!json.is_array() || json.size() != config.layers.size()) {
    refuse_condensers(
        subject,
        fmt::format(
            "expected a list of {} lists of experts, one a layer",
            config.layers.size()));
  }
  Condensers result;
  for (std::size_t l = 0; l < json.size(); ++l) {
    if (!json[l].is_array()) {
      refuse_condensers(
          subject, fmt::format("expected a list for layer {}", l));
    }
    std::vector<std::int64_t> experts;
    for (const Json& expert : json[l]) {
      const bool known =
          expert.is_number_integer() && expert.get<std::int64_t>() >= 0 &&
          expert.get<std::int64_t>() < config.layers[l].num_experts();
      if (!known) {
        refuse_condensers(
            subject,
            fmt::format(
                "layer {} has {} experts, found {}",
                l,
                config.layers[l].num_experts(),
                expert.dump()));
      }
      experts.push_back(expert.get<std::int64_t>());
    }
    std::ranges::sort(experts);
    const auto repeated = std::ranges::unique(experts);
    experts.erase(repeated.begin(), repeated.end());
    result.push_back(std::move(experts));
  }
  return result;
}

Condensers find_condensers(
    const model::ModelReader& reader, const artifact::ScoreFile& scores) {
  const model::ModelConfig& config = reader.config();
  if (config.json.contains(kKey)) {
    return parse_condensers(config.json[kKey], config, "config.json");
  }
  const std::filesystem::path manifest = reader.folder() / "fettle.json";
  if (std::filesystem::exists(manifest)) {
    const Json json = read_json(manifest, "trim");
    if (json.contains(kKey)) {
      return parse_condensers(json[kKey], config, "fettle.json");
    }
  }
  if (scores.run.is_object() && scores.run.contains(kKey)) {
    return parse_condensers(scores.run[kKey], config, "scores.json");
  }
  return {};
}

Condensers renumbered(
    const Condensers& condensers, const artifact::TrimPlan& plan) {
  Condensers result;
  for (std::size_t l = 0; l < condensers.size(); ++l) {
    result.emplace_back();
    const auto& experts = plan.layers[l].experts;
    for (std::size_t i = 0; i < experts.size(); ++i) {
      if (std::ranges::binary_search(condensers[l], experts[i].expert)) {
        result.back().push_back(static_cast<std::int64_t>(i));
      }
    }
  }
  return result;
}

void renumber_condensers(Json& json, const artifact::TrimPlan& plan) {
  if (!json.is_object() || !json.contains(kKey)) return;
  Condensers before;
  for (const Json& layer : json[kKey]) {
    before.push_back(layer.get<std::vector<std::int64_t>>());
    std::ranges::sort(before.back());
  }
  if (before.size() == plan.layers.size())
    json[kKey] = renumbered(before, plan);
}

}  // namespace fettle::trim
