// SPDX-License-Identifier: Apache-2.0
// What low-rank pairs are added to. A target is one matrix, or one matrix of
// each expert of a layer, in the orientation that layers hold it in: rows of
// neurons for experts, [out, in] for attention, down projections transposed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/layer_weights.h"

namespace fettle::tune {

// Kinds of weights that may be asked for, all layers' of each.
struct LowRankKinds {
  bool experts = false;
  bool attention = false;
  bool shared = false;
  bool dense = false;
};

// The roles that `kinds` covers, in any family.
std::vector<model::Role> low_rank_roles(const LowRankKinds& kinds);

struct LowRankTarget {
  std::int64_t layer = 0;
  // kExpertGate stands for gate and up of every expert: one matrix [2I, H]
  // each, as families store it fused, so that both share a factor. Experts
  // without a gate have kExpertUp.
  model::Role role{};
  // Rows of matrix e are [offsets[e], offsets[e + 1]); none for width 0.
  std::vector<std::int64_t> offsets;
  std::int64_t columns = 0;

  std::int64_t matrices() const {
    return static_cast<std::int64_t>(offsets.size()) - 1;
  }
  std::int64_t rows() const { return offsets.back(); }
  std::int64_t rows(std::int64_t e) const {
    return offsets[e + 1] - offsets[e];
  }
  bool of_experts() const { return model::is_expert_role(role); }
  // Whether the matrix lies in its stored orientation, [out, in].
  bool upright() const;
  std::string name() const;  // in files: "expert_gate_up", else the role's
  // Whether `id` is a matrix of the target, or a half of one.
  bool covers(const model::WeightId& id) const;
};

// The targets of a layer in a fixed order; those without weights are left out.
std::vector<LowRankTarget> low_rank_targets(
    const LowRankKinds& kinds,
    const model::ModelConfig& config,
    std::int64_t layer);

// Puts a copy that is the layer's own in the place of the target's tensor, and
// returns the part of it that is the target: [rows, columns].
at::Tensor own_target(const LowRankTarget& target, model::LayerWeights& into);

}  // namespace fettle::tune
