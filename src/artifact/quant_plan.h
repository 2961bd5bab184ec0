// SPDX-License-Identifier: Apache-2.0
// What each matrix of a model is to be stored as: the result of allocating
// bits, stored as quant_plan.json. It names schemes as the quant stage does;
// the stage that carries out a plan knows what they mean.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/model_reader.h"

namespace fettle::artifact {

// Schemes of the matrices of a layer, or of those outside all layers: one a
// role, and of an expert's role one for each expert.
using SchemeNames = std::map<model::Role, std::vector<std::string>>;

struct QuantPlan {
  // Empty: made before its model was, which only has to have the shape.
  std::string model_fingerprint = {};
  Json options = Json::object();
  SchemeNames globals = {};
  std::vector<SchemeNames> layers = {};

  // Whether a plan says anything of such weights: of embeddings, head, the
  // attention's projections and the matrices of MLPs.
  static bool covers(model::Role role);
  // A plan with a scheme for each weight that one covers.
  static QuantPlan of(
      const model::ModelConfig& config,
      const std::function<std::string(const model::WeightId&)>& scheme);

  // The scheme of a weight that plans cover, in a model that this plan fits.
  const std::string& scheme(const model::WeightId& id) const;

  Json to_json() const;
  // Throws UserError on another format, on roles that plans don't cover, and on
  // schemes that are no text, or no list of it.
  static QuantPlan from_json(const Json& json, const std::string& subject);

  void save(const std::filesystem::path& file) const;
  static QuantPlan load(const std::filesystem::path& file);

  // Throws UserError unless the plan names a scheme for every weight that it
  // should of a model of `config`, and for no other.
  void check_against(const model::ModelConfig& config) const;
};

// Throws UserError unless `plan` was made for this very model and fits it.
void require_plan_of(const model::ModelReader& reader, const QuantPlan& plan);

}  // namespace fettle::artifact
