// SPDX-License-Identifier: Apache-2.0
// A plan for a whole model: how wide each expert stays and by which scheme each
// matrix is rounded, with what that costs and takes.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "artifact/quant_plan.h"
#include "artifact/trim_plan.h"
#include "chain/price.h"

namespace fettle::chain {

struct ExpertChoice {
  std::int64_t width = 0;
  quant::Scheme gate_up = {};
  quant::Scheme down = {};
};

struct FitPlan {
  std::vector<ExpertChoice> experts = {};  // as in the table
  std::vector<quant::Scheme> others = {};  // as in the table
  std::int64_t bytes = 0;                  // of the whole model
  double cut_nats = 0, round_nats = 0;     // predicted, a token
  double products = 1;  // share of the routed experts' products that is left
  double kept = 1;      // share of the routed experts' neurons
  double gap = 0;       // see quant::Allocation
  double nats() const { return cut_nats + round_nats; }
};

// A search finds what is priced too low: the plan that it chose costs so many
// times what its prices say, the more the fewer tokens they were measured on
// (docs/fit-price.md).
double chosen_cost(std::int64_t tokens);
FitPlan as_chosen(FitPlan plan, std::int64_t tokens);

// The nats of rounding an expert's matrices by a choice, before the
// calibration's curve, and its bytes.
double rounding_nats(
    const PriceTable& table,
    const ExpertPrice& expert,
    const ExpertChoice& choice);
std::int64_t expert_bytes(
    const model::ModelReader& reader,
    const PriceTable& table,
    const ExpertPrice& expert,
    const ExpertChoice& choice);

// The plan's losses from its choices; schemes may be kept that the table does
// not have.
void price_plan(const PriceTable& table, FitPlan& plan);
// Its losses, bytes and products.
void sum_plan(
    const model::ModelReader& reader, const PriceTable& table, FitPlan& plan);

// By which scheme a plan stores each weight. Table and plan must outlive it.
class PlannedSchemes {
 public:
  PlannedSchemes(const PriceTable& table, const FitPlan& plan);
  // Null where the plan says nothing of the weight: it is kept.
  const quant::Scheme* find(const model::WeightId& id) const;

 private:
  std::map<std::pair<std::int64_t, std::int64_t>, const ExpertChoice*>
      experts_;  // by layer and expert
  std::map<std::pair<std::int64_t, model::Role>, const quant::Scheme*>
      others_;  // by layer and role
};

// Plans that the trim stage and, on its result, the quant stage carry out. The
// second names no fingerprint: its model is yet to be made.
artifact::TrimPlan trim_plan(
    const model::ModelReader& reader,
    const PriceTable& table,
    const FitPlan& plan);
artifact::QuantPlan quant_plan(
    const model::ModelReader& reader,
    const PriceTable& table,
    const FitPlan& plan);

}  // namespace fettle::chain
