// SPDX-License-Identifier: Apache-2.0
// Which neurons of which experts stay: the whole result of planning a trim,
// stored as trim_plan.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::artifact {

struct ExpertPlan {
  std::int64_t expert = 0;              // index in the untrimmed model
  std::vector<std::int64_t> neurons;    // kept, ascending, in that expert
};

struct LayerPlan {
  std::vector<ExpertPlan> experts;  // kept, ascending; empty for a dense layer
  std::int64_t top_k = 0;
};

struct TrimPlan {
  std::string model_fingerprint;
  std::vector<LayerPlan> layers;
  Json options = Json::object();

  Json to_json() const;
  static TrimPlan from_json(const Json& json, const std::string& subject);
};

}  // namespace fettle::artifact
