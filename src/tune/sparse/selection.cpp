// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/selection.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/error.h"

namespace fettle::tune {

namespace {

struct Candidate {
  double score;
  std::int64_t layer;
  std::int64_t neuron;
};

bool before(const Candidate& a, const Candidate& b) {
  return a.layer != b.layer ? a.layer < b.layer : a.neuron < b.neuron;
}

// Keeps the `count` candidates with the highest scores.
void keep_best(std::vector<Candidate>& candidates, std::size_t count) {
  FETTLE_ASSERT(count <= candidates.size());
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : before(a, b);
  };
  std::nth_element(
      candidates.begin(),
      candidates.begin() + static_cast<std::ptrdiff_t>(count),
      candidates.end(),
      better);
  candidates.resize(count);
}

void add_sorted(std::vector<Candidate> from, UnitSets& sets) {
  std::sort(from.begin(), from.end(), before);
  for (const Candidate& one : from) sets[one.layer].push_back(one.neuron);
}

std::size_t budget(std::size_t neurons, double frac) {
  if (neurons == 0) return 0;
  const double exact = frac * static_cast<double>(neurons);
  return std::clamp<std::size_t>(std::llround(exact), 1, neurons);
}

// Layer numbers that are ranked together.
std::vector<std::vector<std::int64_t>> groups(std::size_t layers, Scope scope) {
  std::vector<std::vector<std::int64_t>> result;
  for (std::size_t l = 0; l < layers; ++l) {
    if (result.empty() || scope == Scope::kLayer) result.emplace_back();
    result.back().push_back(static_cast<std::int64_t>(l));
  }
  return result;
}

// Drops and grows inside one group.
void exchange_group(
    const Exchange& exchange,
    std::span<const std::int64_t> layers,
    UnitSets& result) {
  std::vector<Candidate> kept;
  std::size_t neurons = 0;
  for (const std::int64_t l : layers) {
    const auto& chosen = exchange.chosen[l];
    FETTLE_ASSERT(chosen.size() == exchange.worth[l].size());
    neurons += exchange.scores[l].size();
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      kept.push_back({exchange.worth[l][i], l, chosen[i]});
    }
  }
  const std::size_t total = kept.size();
  const auto drop = static_cast<std::size_t>(
      std::llround(exchange.share * static_cast<double>(total)));
  keep_best(kept, total - std::min(drop, total));

  UnitSets survivors(exchange.chosen.size());
  add_sorted(kept, survivors);
  std::vector<Candidate> others;
  others.reserve(neurons - kept.size());
  for (const std::int64_t l : layers) {
    auto next = survivors[l].begin();
    const auto size = static_cast<std::int64_t>(exchange.scores[l].size());
    for (std::int64_t k = 0; k < size; ++k) {
      if (next != survivors[l].end() && *next == k) {
        ++next;
      } else {
        others.push_back({exchange.scores[l][k], l, k});
      }
    }
  }
  keep_best(others, total - kept.size());
  kept.insert(kept.end(), others.begin(), others.end());
  add_sorted(std::move(kept), result);
}

}  // namespace

UnitSets choose_units(const UnitScores& scores, double frac, Scope scope) {
  UnitSets result(scores.size());
  for (const auto& layers : groups(scores.size(), scope)) {
    std::size_t units = 0;
    for (const std::int64_t l : layers) units += scores[l].size();
    std::vector<Candidate> candidates;
    candidates.reserve(units);
    for (const std::int64_t l : layers) {
      for (std::size_t k = 0; k < scores[l].size(); ++k) {
        candidates.push_back({scores[l][k], l, static_cast<std::int64_t>(k)});
      }
    }
    keep_best(candidates, budget(candidates.size(), frac));
    add_sorted(std::move(candidates), result);
  }
  return result;
}

UnitSets exchange_units(const Exchange& exchange) {
  UnitSets result(exchange.chosen.size());
  for (const auto& layers : groups(exchange.chosen.size(), exchange.scope)) {
    exchange_group(exchange, layers, result);
  }
  return result;
}

}  // namespace fettle::tune
