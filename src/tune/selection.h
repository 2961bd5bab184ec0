// SPDX-License-Identifier: Apache-2.0
// Which neurons are trained: pure functions of scores. A layer's neurons are
// numbered as the rows of its expert bank, experts in order; a dense layer has
// none. Equal scores are settled by the lower layer, then the lower number.
#pragma once

#include <cstdint>
#include <vector>

namespace fettle::tune {

enum class Scope {
  kGlobal,  // one ranking of the whole model
  kLayer,   // each layer by itself
};

using NeuronScores = std::vector<std::vector<double>>;      // [L][S_l]
using NeuronSets = std::vector<std::vector<std::int64_t>>;  // [L], ascending

// The best `frac` of all neurons (of each layer's, by scope), rounded to the
// nearest whole number, at least one.
NeuronSets choose_neurons(const NeuronScores& scores, double frac, Scope scope);

struct Exchange {
  const NeuronSets& chosen;
  // Worth of each chosen neuron, in the order of `chosen`.
  const NeuronScores& worth;
  const NeuronScores& scores;  // of all neurons, freshly accumulated
  double share = 0.0;          // of the chosen ones to exchange
  Scope scope = Scope::kGlobal;
};

// RigL: drops the `share` of chosen neurons that are worth least and grows as
// many from all others by score; one just dropped may come back.
// Source: Evci et al., "Rigging the Lottery", ICML 2020, section 3(3, 4).
NeuronSets exchange_neurons(const Exchange& exchange);

}  // namespace fettle::tune
