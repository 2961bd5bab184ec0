// SPDX-License-Identifier: Apache-2.0
#include "quant/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "artifact/report_parts.h"
#include "core/bytes.h"
#include "io/file.h"

namespace fettle {

extern const std::string_view quant_report_html;

namespace quant {
namespace {

namespace mustache = kainjow::mustache;

std::string error_text(const RoleRecord& role) {
  if (role.matrices == 0) return "kept";
  if (!(role.energy > 0)) return "0 %";
  return fmt::format("{:.3g} %", 100 * role.error / role.energy);
}

mustache::data role_row(const std::string& name, const RoleRecord& role) {
  mustache::data row;
  row["role"] = name;
  row["weights"] = std::to_string(role.weights);
  row["size"] = format_bytes(role.bytes);
  row["bits"] = fmt::format("{:.3f}", bits_per_weight(role));
  row["error"] = error_text(role);
  row["matrices"] = std::to_string(role.matrices);
  row["scarce"] = std::to_string(role.scarce);
  row["unseen"] = std::to_string(role.unseen);
  return row;
}

Json by_layer(
    const QuantResult& result,
    const std::string& name,
    double (*value)(const RoleRecord&)) {
  Json row = Json::array();
  for (const LayerRecord& layer : result.layers) {
    if (layer.layer < 0) continue;
    const auto found = layer.roles.find(name);
    const bool there = found != layer.roles.end() && found->second.matrices > 0;
    row.push_back(there ? Json(value(found->second)) : Json());
  }
  return row;
}

double percent(const RoleRecord& role) {
  return role.energy > 0 ? 100 * role.error / role.energy : 0.0;
}

// By role, a row a layer.
Json expert_maps(const QuantResult& result) {
  std::map<std::string, Json> rows;
  std::size_t layers = 0;
  for (const LayerRecord& layer : result.layers) {
    if (layer.layer < 0) continue;
    for (const auto& [name, bits] : layer.expert_bits) {
      Json& map = rows[name];
      while (map.size() < layers) map.push_back(Json::array());
      map.push_back(bits);
    }
    ++layers;
  }
  Json maps = Json::array();
  for (auto& [name, map] : rows) {
    while (map.size() < layers) map.push_back(Json::array());
    const auto same = std::ranges::find_if(
        maps, [&](const Json& other) { return other["bits"] == map; });
    if (same == maps.end()) {
      maps.push_back({{"name", name}, {"bits", map}});
    } else {
      (*same)["name"] = (*same)["name"].get<std::string>() + ", " + name;
    }
  }
  return maps;
}

bool is_starved(const LayerRecord& layer) {
  return std::ranges::any_of(layer.roles, [](const auto& entry) {
    return entry.second.scarce + entry.second.unseen > 0;
  });
}

}  // namespace

std::map<std::string, RoleRecord> totals(const QuantResult& result) {
  std::map<std::string, RoleRecord> roles;
  for (const LayerRecord& layer : result.layers) {
    for (const auto& [name, role] : layer.roles) {
      RoleRecord& sum = roles[name];
      sum.weights += role.weights;
      sum.bytes += role.bytes;
      sum.error += role.error;
      sum.energy += role.energy;
      sum.matrices += role.matrices;
      sum.scarce += role.scarce;
      sum.unseen += role.unseen;
    }
  }
  return roles;
}

Json report_data(const QuantResult& result) {
  Json layers = Json::array();
  Json scarce = Json::array();
  Json unseen = Json::array();
  for (const LayerRecord& layer : result.layers) {
    if (layer.layer < 0) continue;
    std::int64_t few = 0;
    std::int64_t none = 0;
    for (const auto& [name, role] : layer.roles) {
      few += role.scarce - role.unseen;
      none += role.unseen;
    }
    layers.push_back(layer.layer);
    scarce.push_back(few);
    unseen.push_back(none);
  }
  Json roles = Json::array();
  for (const auto& [name, role] : totals(result)) {
    const bool in_layers =
        role.matrices > 0 && name != "embed_tokens" && name != "lm_head";
    if (!in_layers) continue;
    roles.push_back(
        {{"name", name},
         {"bits", by_layer(result, name, bits_per_weight)},
         {"error", by_layer(result, name, percent)}});
  }
  return {
      {"layers", std::move(layers)},
      {"roles", std::move(roles)},
      {"scarce", std::move(scarce)},
      {"unseen", std::move(unseen)},
      {"expert_bits", expert_maps(result)}};
}

void write_report(const std::filesystem::path& file, const ReportInput& input) {
  const QuantResult& result = input.result;
  mustache::data rows{mustache::data::type::list};
  for (const auto& [name, role] : totals(result)) {
    rows.push_back(role_row(name, role));
  }
  mustache::data view;
  view["title"] = input.title;
  view["before"] = format_bytes(result.before.bytes);
  view["after"] = format_bytes(result.after.bytes);
  view["share"] = fmt::format(
      "{:.1f}",
      100.0 * static_cast<double>(result.after.bytes) /
          static_cast<double>(std::max<std::int64_t>(result.before.bytes, 1)));
  view["bits"] = fmt::format(
      "{:.3f}",
      8.0 * static_cast<double>(result.after.bytes) /
          static_cast<double>(
              std::max<std::int64_t>(result.after.parameters, 1)));
  view["calibrated"] = result.tokens > 0;
  view["starved"] = std::ranges::any_of(result.layers, is_starved);
  view["tokens"] = std::to_string(result.tokens);
  view["roles"] = std::move(rows);
  Json data = report_data(result);
  view["experts"] = !data["expert_bits"].empty();
  io::write_file(
      file,
      artifact::render_page(
          {quant_report_html,
           std::move(view),
           std::move(data),
           input.making,
           input.quality}));
}

}  // namespace quant
}  // namespace fettle
