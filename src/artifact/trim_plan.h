// SPDX-License-Identifier: Apache-2.0
// Which neurons of which experts stay: the whole result of planning a trim,
// stored as trim_plan.json. There the kept neurons of an expert are written as
// spans, "0-3,7,9-12", so that a plan of millions of neurons stays readable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::artifact {

struct ExpertPlan {
  std::int64_t expert = 0;            // index in the untrimmed model
  std::vector<std::int64_t> neurons;  // kept, ascending, in that expert

  std::int64_t width() const {
    return static_cast<std::int64_t>(neurons.size());
  }
  bool operator==(const ExpertPlan&) const = default;
};

struct LayerPlan {
  std::vector<ExpertPlan> experts;  // kept, ascending; empty for a dense layer
  std::int64_t top_k = 0;

  std::vector<std::int64_t> kept_experts() const;  // their indices
  bool operator==(const LayerPlan&) const = default;
};

struct TrimPlan {
  std::string model_fingerprint;
  std::vector<LayerPlan> layers;
  Json options = Json::object();

  Json to_json() const;
  // Throws UserError on another format, on spans that are malformed, overlap
  // or descend, and on experts that don't ascend.
  static TrimPlan from_json(const Json& json, const std::string& subject);

  void save(const std::filesystem::path& file) const;
  static TrimPlan load(const std::filesystem::path& file);

  // Throws UserError unless every layer, expert and neuron of the plan exists
  // in a model of `config`, and every sparse layer keeps top_k experts.
  void check_against(const model::ModelConfig& config) const;
};

// "0-3,7" from {0, 1, 2, 3, 7}; "" from none.
std::string format_spans(const std::vector<std::int64_t>& ascending);
// The inverse. Throws UserError naming `subject`.
std::vector<std::int64_t> parse_spans(
    const std::string& text, const std::string& subject);

}  // namespace fettle::artifact
