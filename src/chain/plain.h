// SPDX-License-Identifier: Apache-2.0
// What a person would try by hand: one share of the neurons for the whole
// model, and one scheme for all experts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "chain/search.h"

namespace fettle::chain {

struct PlainChoice {
  double keep = 1;
  quant::Scheme scheme = {};  // of the experts

  std::string name() const;  // "50 % of the neurons at int4"
};

// Shares of 25, 50, 75 and 100 % by the schemes that the table's experts have.
std::vector<PlainChoice> plain_grid(const PriceTable& table);

// The plan that trim --keep and quant --bits would make, the other matrices by
// their defaults: int8, embeddings and head as they are. None where the table
// has not measured those.
std::optional<FitPlan> plain_plan(
    const model::ModelReader& reader,
    const PriceTable& table,
    const artifact::ScoreFile& scores,
    const PlainChoice& choice);

}  // namespace fettle::chain
