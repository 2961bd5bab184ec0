// SPDX-License-Identifier: Apache-2.0
// Turns scores into the ranked lists that a plan cuts, one pool of lists for
// each set of items that compete with each other.
#pragma once

#include <string>
#include <vector>

#include "artifact/score_file.h"
#include "model/family/model_config.h"
#include "trim/plan.h"
#include "trim/ranking.h"

namespace fettle::trim {

struct Pool {
  // Where a pile's items come from: an expert's neurons, or a layer's experts.
  struct Place {
    std::int64_t layer;
    std::int64_t expert;               // -1: whole experts
    std::vector<std::uint32_t> order;  // items by falling score, ties by index
  };
  std::vector<Pile> piles;
  // For each pile: the places that keep as many of their items as it does.
  std::vector<std::vector<Place>> places;
  std::string name;  // for messages: "layer 3"

  std::int64_t cost() const;        // of all items
  std::int64_t floor_cost() const;  // of the floors
  // Takes out the piles that are `gone`.
  void remove(const std::vector<bool>& gone);
};

// Throws UserError as plan_trim does on bad scores.
std::vector<Pool> neuron_pools(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options);

// Experts that a layer's router cannot do without, equally many of each group.
std::int64_t fewest_experts(
    const model::RouterConfig& router, const model::LayerConfig& layer);

// Whether the options spare the expert as a condenser.
bool is_condenser(
    const TrimOptions& options, std::int64_t layer, std::int64_t expert);

// Makes one pile of all whose widths are to be equal.
void join_widths(std::vector<Pool>& pools, WidthRule widths);

std::vector<Pool> expert_pools(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options);

}  // namespace fettle::trim
