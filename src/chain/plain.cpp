// SPDX-License-Identifier: Apache-2.0
#include "chain/plain.h"

#include <fmt/format.h>

#include <algorithm>

#include "trim/plan.h"

namespace fettle::chain {
namespace {

using quant::Scheme;

bool has_scheme(const std::vector<SchemePrice>& schemes, const Scheme& scheme) {
  return std::ranges::find(schemes, scheme, &SchemePrice::scheme) !=
         schemes.end();
}

Scheme default_of(const model::WeightId& id) {
  return quant::parse_scheme(id.layer < 0 ? "keep" : "int8");
}

}  // namespace

std::string PlainChoice::name() const {
  return fmt::format(
      "{:.0f} % of the neurons at {}", 100 * keep, quant::scheme_name(scheme));
}

std::vector<PlainChoice> plain_grid(const PriceTable& table) {
  std::vector<PlainChoice> grid;
  for (const ExpertPrice& expert : table.experts) {
    if (expert.matrices.empty()) continue;
    for (const SchemePrice& price : expert.matrices.front().schemes) {
      for (const double keep : {1.0, 0.75, 0.5, 0.25}) {
        grid.push_back({keep, price.scheme});
      }
    }
    break;
  }
  return grid;
}

std::optional<FitPlan> plain_plan(
    const model::ModelReader& reader,
    const PriceTable& table,
    const artifact::ScoreFile& scores,
    const PlainChoice& choice) {
  FitPlan plan;
  for (const OtherMatrix& other : table.others) {
    const Scheme scheme = default_of(other.id);
    if (!has_scheme(other.schemes, scheme)) return {};
    plan.others.push_back(scheme);
  }
  trim::TrimOptions options;
  options.keep = choice.keep;
  const artifact::TrimPlan cut =
      trim::plan_trim(scores, reader.config(), options);
  for (const ExpertPrice& expert : table.experts) {
    for (const ExpertMatrix& matrix : expert.matrices) {
      if (!has_scheme(matrix.schemes, choice.scheme)) return {};
    }
    const auto& kept = cut.layers[expert.layer].experts[expert.expert];
    plan.experts.push_back({kept.width(), choice.scheme, choice.scheme});
  }
  sum_plan(reader, table, plan);
  return plan;
}

}  // namespace fettle::chain
