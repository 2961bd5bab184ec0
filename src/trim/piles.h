// SPDX-License-Identifier: Apache-2.0
// Turns scores into the ranked lists that a plan cuts, one pool of lists for
// each set of items that compete with each other.
#pragma once

#include <string>
#include <vector>

#include "artifact/score_file.h"
#include "model/model_config.h"
#include "trim/plan.h"
#include "trim/ranking.h"

namespace fettle::trim {

struct Pool {
  std::vector<Pile> piles;
  // Of each pile: its layer, and its expert or -1 (unit expert).
  struct Place {
    std::int64_t layer;
    std::int64_t expert;
  };
  std::vector<Place> places;
  std::string name;  // for messages: "layer 3"

  std::int64_t cost() const;        // of all items
  std::int64_t floor_cost() const;  // of the floors
};

// Throws UserError as plan_trim does on bad scores.
std::vector<Pool> neuron_pools(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options);

std::vector<Pool> expert_pools(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options);

}  // namespace fettle::trim
