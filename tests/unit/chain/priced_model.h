// SPDX-License-Identifier: Apache-2.0
// A tiny model and prices for it that were made up.
#pragma once

#include <cstdint>
#include <utility>

#include "../artifact/tiny_model.h"
#include "chain/price.h"

namespace fettle::testing {

inline TinyModelOptions small_model(std::int64_t layers) {
  TinyModelOptions options;
  options.changes = {
      {"num_hidden_layers", layers},
      {"num_experts", 2},
      {"moe_intermediate_size", 4}};
  return options;
}

// Prices by hand: neurons of expert e cost e + 1 times 1, 2, 3, 4 cents, the
// last neuron most; rounding costs by bits, a scheme's table times the layer.
inline chain::PriceTable priced_table(const model::ModelReader& reader) {
  using model::Role;
  using quant::parse_scheme;
  chain::PriceTable table;
  table.grid.group = 0;
  table.grid.symmetric = true;
  const model::ModelConfig& config = reader.config();
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    for (std::int64_t e = 0; e < 2; ++e) {
      chain::ExpertPrice expert{.layer = l, .expert = e};
      expert.order = {3, 2, 1, 0};
      const double unit = 0.01 * static_cast<double>((e + 1) * (l + 1));
      expert.cut = {10 * unit, 6 * unit, 3 * unit, unit, 0};
      expert.tokens = e == 0 ? 0.1 : 0.9;
      for (const Role role : model::kExpertRoles.all()) {
        const double base = unit * (role == Role::kExpertDown ? 3 : 1);
        expert.matrices.push_back(
            {{role, l, e},
             {{parse_scheme("int8"), 0},
              {parse_scheme("int4"), base},
              {parse_scheme("int2"), 5 * base}},
             {0, 0.3, 0.6, 0.85, 1}});
      }
      table.experts.push_back(std::move(expert));
    }
  }
  table.others.push_back(
      {{Role::kEmbedTokens},
       {{parse_scheme("keep"), 0}, {parse_scheme("int8"), 0.015}},
       {352, 200}});
  table.fixed_bytes = 1000;
  return table;
}

}  // namespace fettle::testing
