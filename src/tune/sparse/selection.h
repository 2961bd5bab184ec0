// SPDX-License-Identifier: Apache-2.0
// Which units (neurons, blocks) are trained: pure functions of scores. Units
// are numbered in each layer. Equal scores are settled by the lower layer, then
// the lower number.
#pragma once

#include <cstdint>
#include <vector>

namespace fettle::tune {

enum class Scope {
  kGlobal,  // one ranking of the whole model
  kLayer,   // each layer by itself
};

using UnitScores = std::vector<std::vector<double>>;      // [L][S_l]
using UnitSets = std::vector<std::vector<std::int64_t>>;  // [L], ascending

// The best `frac` of all units (of each layer's, by scope), rounded to the
// nearest whole number, at least one.
UnitSets choose_units(const UnitScores& scores, double frac, Scope scope);

struct Exchange {
  const UnitSets& chosen;
  // Worth of each chosen unit, in the order of `chosen`.
  const UnitScores& worth;
  const UnitScores& scores;  // of all units, freshly accumulated
  double share = 0.0;        // of the chosen ones to exchange
  Scope scope = Scope::kGlobal;
};

// RigL: drops the `share` of chosen units that are worth least and grows as
// many from all others by score; one just dropped may come back.
// Source: Evci et al., "Rigging the Lottery", ICML 2020, section 3(3, 4).
UnitSets exchange_units(const Exchange& exchange);

}  // namespace fettle::tune
