// SPDX-License-Identifier: Apache-2.0
#include "artifact/quant_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

using model::Role;

constexpr std::int64_t kQuantPlanFormat = 1;

// The roles that a plan has a scheme for, of the model or of a layer.
std::vector<Role> roles_of(bool model) {
  std::vector<Role> roles;
  for (const model::RoleInfo& info : model::role_infos()) {
    const bool global = info.scope == model::RoleScope::kModel;
    if (global == model && info.is_packable()) roles.push_back(info.role);
  }
  return roles;
}

std::string text_of(const JsonObject& object, Role role, const Json& value) {
  if (!value.is_string()) {
    object.refuse(model::role_name(role), "expected the name of a scheme");
  }
  return value.get<std::string>();
}

SchemeNames read_schemes(
    const JsonObject& object, const std::vector<Role>& roles) {
  SchemeNames schemes;
  for (const auto& [name, value] : object.json().items()) {
    const auto role = std::ranges::find(roles, name, model::role_name);
    if (role == roles.end()) {
      std::vector<std::string_view> known;
      for (const Role one : roles) known.push_back(model::role_name(one));
      object.refuse(
          name, fmt::format("expected one of {}", fmt::join(known, ", ")));
    }
    std::vector<std::string>& into = schemes[*role];
    if (!model::is_expert_role(*role)) {
      into.push_back(text_of(object, *role, value));
      continue;
    }
    if (!value.is_array()) {
      object.refuse(name, "expected a list of schemes, one an expert");
    }
    for (const Json& one : value) into.push_back(text_of(object, *role, one));
  }
  return schemes;
}

Json write_schemes(const SchemeNames& schemes) {
  Json json = Json::object();
  for (const auto& [role, names] : schemes) {
    Json& into = json[std::string(model::role_name(role))];
    if (model::is_expert_role(role)) {
      into = names;
    } else {
      into = names.at(0);
    }
  }
  return json;
}

[[noreturn]] void misfit(const std::string& place, const std::string& why) {
  throw UserError("quant", place, why + "; plan again for this model");
}

// How many schemes of each role a plan should have there.
std::map<Role, std::size_t> counts(const std::vector<model::WeightId>& ids) {
  std::map<Role, std::size_t> result;
  for (const model::WeightId& id : ids) {
    if (QuantPlan::covers(id.role)) ++result[id.role];
  }
  return result;
}

void check_schemes(
    const std::string& place,
    const SchemeNames& schemes,
    const std::map<Role, std::size_t>& expected) {
  for (const auto& [role, count] : expected) {
    const auto found = schemes.find(role);
    if (found == schemes.end()) {
      misfit(
          place,
          fmt::format(
              "expected a scheme for {}, found none", model::role_name(role)));
    }
    if (found->second.size() != count) {
      misfit(
          place,
          fmt::format(
              "expected {} schemes for {}, found {}",
              count,
              model::role_name(role),
              found->second.size()));
    }
  }
  for (const auto& [role, names] : schemes) {
    if (!expected.contains(role)) {
      misfit(
          place,
          fmt::format(
              "expected no scheme for {}, which the model lacks there, found "
              "one",
              model::role_name(role)));
    }
  }
}

std::vector<model::WeightId> global_weights(const model::ModelConfig& config) {
  std::vector<model::WeightId> ids = model::model_weights(config);
  std::erase_if(ids, [](const model::WeightId& id) { return id.layer >= 0; });
  return ids;
}

}  // namespace

bool QuantPlan::covers(Role role) {
  return model::role_info(role).is_packable();
}

QuantPlan QuantPlan::of(
    const model::ModelConfig& config,
    const std::function<std::string(const model::WeightId&)>& scheme) {
  QuantPlan plan;
  plan.layers.resize(config.layers.size());
  // Experts come ascending.
  for (const model::WeightId& id : model::model_weights(config)) {
    if (!covers(id.role)) continue;
    SchemeNames& into = id.layer < 0 ? plan.globals : plan.layers[id.layer];
    into[id.role].push_back(scheme(id));
  }
  return plan;
}

const std::string& QuantPlan::scheme(const model::WeightId& id) const {
  const SchemeNames& schemes = id.layer < 0 ? globals : layers.at(id.layer);
  return schemes.at(id.role).at(id.expert < 0 ? 0 : id.expert);
}

Json QuantPlan::to_json() const {
  Json rows = Json::array();
  for (const SchemeNames& layer : layers) rows.push_back(write_schemes(layer));
  return {
      {"format", kQuantPlanFormat},
      {"model_fingerprint", model_fingerprint},
      {"options", options},
      {"globals", write_schemes(globals)},
      {"layers", std::move(rows)}};
}

QuantPlan QuantPlan::from_json(const Json& json, const std::string& subject) {
  const JsonObject object(json, "quant", subject);
  if (object.integer("format") != kQuantPlanFormat) {
    object.refuse(
        "format",
        fmt::format(
            "expected {}, found {}; plan again with this version",
            kQuantPlanFormat,
            object.integer("format")));
  }
  QuantPlan plan;
  plan.model_fingerprint = object.string("model_fingerprint");
  plan.options = object.object("options").json();
  plan.globals = read_schemes(
      JsonObject(object.at("globals"), "quant", subject + ": globals"),
      roles_of(/*model=*/true));
  const std::vector<Role> layer_roles = roles_of(/*model=*/false);
  const Json& rows = object.at("layers");
  if (!rows.is_array()) object.refuse("layers", "expected a list");
  for (std::size_t l = 0; l < rows.size(); ++l) {
    plan.layers.push_back(read_schemes(
        JsonObject(rows[l], "quant", fmt::format("{}: layer {}", subject, l)),
        layer_roles));
  }
  return plan;
}

void QuantPlan::save(const std::filesystem::path& file) const {
  io::write_file(file, to_json().dump(1) + "\n");
}

QuantPlan QuantPlan::load(const std::filesystem::path& file) {
  return from_json(read_json(file, "quant"), file.string());
}

void QuantPlan::check_against(const model::ModelConfig& config) const {
  if (layers.size() != config.layers.size()) {
    misfit(
        "plan",
        fmt::format(
            "expected {} layers, found {}",
            config.layers.size(),
            layers.size()));
  }
  check_schemes("globals", globals, counts(global_weights(config)));
  for (std::size_t l = 0; l < layers.size(); ++l) {
    check_schemes(
        fmt::format("layer {}", l),
        layers[l],
        counts(model::layer_weights(config, static_cast<std::int64_t>(l))));
  }
}

void require_plan_of(const model::ModelReader& reader, const QuantPlan& plan) {
  const std::string found = reader.fingerprint();
  const bool made_before = plan.model_fingerprint.empty();
  if (!made_before && found != plan.model_fingerprint) {
    misfit(
        "plan",
        fmt::format(
            "expected a plan of {} (fingerprint {}), found one of another "
            "model ({})",
            reader.folder().string(),
            found,
            plan.model_fingerprint));
  }
  plan.check_against(reader.config());
}

}  // namespace fettle::artifact
