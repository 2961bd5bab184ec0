// SPDX-License-Identifier: Apache-2.0
#include "chain/fit_plan.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace fettle::chain {
namespace {

using quant::Scheme;

std::size_t place_of(
    const std::vector<SchemePrice>& schemes, const Scheme& scheme) {
  const auto found = std::ranges::find(schemes, scheme, &SchemePrice::scheme);
  FETTLE_ASSERT(found != schemes.end());
  return static_cast<std::size_t>(found - schemes.begin());
}

double nats_of(const std::vector<SchemePrice>& schemes, const Scheme& scheme) {
  return scheme.keep ? 0 : schemes[place_of(schemes, scheme)].nats;
}

const Scheme& scheme_for(const ExpertMatrix& matrix, const ExpertChoice& c) {
  return model::is_down_role(matrix.id.role) ? c.down : c.gate_up;
}

}  // namespace

double chosen_cost(std::int64_t tokens) {
  constexpr double kTokens = 131072;
  constexpr double kCost = 1.5;  // by so many tokens
  constexpr double kMost = 6;    // nothing was measured beyond
  const double fewer =
      kTokens / static_cast<double>(std::max<std::int64_t>(tokens, 1));
  return std::clamp(kCost * std::sqrt(fewer), kCost, kMost);
}

FitPlan as_chosen(FitPlan plan, std::int64_t tokens) {
  plan.cut_nats *= chosen_cost(tokens);
  plan.round_nats *= chosen_cost(tokens);
  return plan;
}

double rounding_nats(
    const PriceTable& table,
    const ExpertPrice& expert,
    const ExpertChoice& choice) {
  double nats = 0;
  for (const ExpertMatrix& matrix : expert.matrices) {
    nats += matrix.share[choice.width] *
            nats_of(matrix.schemes, scheme_for(matrix, choice));
  }
  return table.calibration.round * nats *
         growth_at(table, expert, choice.width);
}

std::int64_t expert_bytes(
    const model::ModelReader& reader,
    const PriceTable& table,
    const ExpertPrice& expert,
    const ExpertChoice& choice) {
  std::int64_t bytes = 0;
  for (const ExpertMatrix& matrix : expert.matrices) {
    bytes += matrix_bytes(
        reader,
        matrix.id,
        scheme_for(matrix, choice),
        table.grid,
        choice.width);
  }
  return bytes + expert.bias_bytes * choice.width;
}

void price_plan(const PriceTable& table, FitPlan& plan) {
  plan.cut_nats = plan.round_nats = 0;
  for (std::size_t e = 0; e < table.experts.size(); ++e) {
    const ExpertPrice& expert = table.experts[e];
    const ExpertChoice& choice = plan.experts[e];
    plan.cut_nats += cut_nats(table, expert, choice.width);
    plan.round_nats += rounding_nats(table, expert, choice);
  }
  for (std::size_t i = 0; i < table.others.size(); ++i) {
    plan.round_nats += table.calibration.round *
                       nats_of(table.others[i].schemes, plan.others[i]);
  }
  const double sum = plan.cut_nats + plan.round_nats;
  if (sum <= 0) return;
  const double curved = table.calibration.expected(sum) / sum;
  plan.cut_nats *= curved;
  plan.round_nats *= curved;
}

void sum_plan(
    const model::ModelReader& reader, const PriceTable& table, FitPlan& plan) {
  price_plan(table, plan);
  plan.bytes = table.fixed_bytes;
  double products = 0;
  double all = 0;
  double kept = 0;
  double neurons = 0;
  for (std::size_t e = 0; e < table.experts.size(); ++e) {
    const ExpertPrice& expert = table.experts[e];
    const ExpertChoice& choice = plan.experts[e];
    plan.bytes += expert_bytes(reader, table, expert, choice);
    products += expert.tokens * static_cast<double>(choice.width);
    all += expert.tokens * static_cast<double>(expert.width());
    kept += static_cast<double>(choice.width);
    neurons += static_cast<double>(expert.width());
  }
  for (std::size_t i = 0; i < table.others.size(); ++i) {
    const OtherMatrix& other = table.others[i];
    plan.bytes += other.bytes[place_of(other.schemes, plan.others[i])];
  }
  plan.products = all > 0 ? products / all : 1;
  plan.kept = neurons > 0 ? kept / neurons : 1;
}

PlannedSchemes::PlannedSchemes(const PriceTable& table, const FitPlan& plan) {
  for (std::size_t e = 0; e < table.experts.size(); ++e) {
    const ExpertPrice& expert = table.experts[e];
    // One that is cut away has no weights to store.
    if (plan.experts[e].width == 0) continue;
    experts_[{expert.layer, expert.expert}] = &plan.experts[e];
  }
  for (std::size_t i = 0; i < table.others.size(); ++i) {
    const model::WeightId& id = table.others[i].id;
    others_[{id.layer, id.role}] = &plan.others[i];
  }
}

const Scheme* PlannedSchemes::find(const model::WeightId& id) const {
  if (model::is_expert_role(id.role)) {
    const auto found = experts_.find({id.layer, id.expert});
    if (found == experts_.end()) return nullptr;
    const ExpertChoice& choice = *found->second;
    return model::is_down_role(id.role) ? &choice.down : &choice.gate_up;
  }
  const auto found = others_.find({id.layer, id.role});
  return found == others_.end() ? nullptr : found->second;
}

artifact::TrimPlan trim_plan(
    const model::ModelReader& reader,
    const PriceTable& table,
    const FitPlan& plan) {
  artifact::TrimPlan result;
  result.model_fingerprint = reader.fingerprint();
  result.options = {{"score", "a price in nats"}};
  for (const model::LayerConfig& layer : reader.config().layers) {
    result.layers.push_back({{}, layer.sparse ? layer.top_k : 0});
  }
  for (std::size_t e = 0; e < table.experts.size(); ++e) {
    const ExpertPrice& expert = table.experts[e];
    std::vector<std::int64_t> neurons(
        expert.order.begin(), expert.order.begin() + plan.experts[e].width);
    std::ranges::sort(neurons);
    result.layers[expert.layer].experts.push_back(
        {expert.expert, std::move(neurons)});
  }
  return result;
}

artifact::QuantPlan quant_plan(
    const model::ModelReader& reader,
    const PriceTable& table,
    const FitPlan& plan) {
  const PlannedSchemes schemes(table, plan);
  const Scheme keep = quant::parse_scheme("keep");
  return artifact::QuantPlan::of(
      reader.config(), [&](const model::WeightId& id) {
        const Scheme* const found = schemes.find(id);
        return quant::scheme_name(found == nullptr ? keep : *found);
      });
}

}  // namespace fettle::chain
