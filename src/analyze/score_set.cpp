// SPDX-License-Identifier: Apache-2.0
#include "analyze/score_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "analyze/finish.h"

namespace fettle::analyze {
namespace {

std::string state_name(
    std::int64_t layer, std::string_view score, std::string_view sum) {
  return fmt::format("layers.{}.{}.{}", layer, score, sum);
}

}  // namespace

ScoreSet::ScoreSet(
    const ScoreContext& context, const std::vector<std::string>& names)
    : config_(context.config), keep_moments_(context.keep_moments) {
  members_.push_back(
      {std::string(kBase), nullptr, std::make_unique<BaseStatistics>(context)});
  std::set<std::string> seen;
  for (const std::string& name : names) {
    const ScoreMethod& method = find_score(name);
    if (!seen.insert(name).second) continue;
    members_.push_back({name, &method, method.make(context)});
  }
  for (const Member& member : members_) {
    forward_.push_back(member.observer.get());
    if (member.method != nullptr && member.method->needs_backward) {
      backward_.push_back(member.observer.get());
    }
  }
}

bool ScoreSet::needs_gradient_batches() const {
  return std::ranges::any_of(members_, [](const Member& member) {
    return member.method != nullptr && member.method->needs_gradient_batches;
  });
}

std::string_view ScoreSet::needs_one_chunk() const {
  if (keep_moments_) return {};
  for (const Member& member : members_) {
    if (member.method != nullptr && member.method->needs_one_chunk) {
      return member.name;
    }
  }
  return {};
}

void ScoreSet::begin_sweeps(std::span<const GradientBatch> batches) {
  for (Member& member : members_) member.observer->begin_sweeps(batches);
}

artifact::LayerScores ScoreSet::finish(std::int64_t layer) const {
  artifact::LayerScores result;
  result.widths = config_.layers[layer].expert_widths;
  if (result.widths.empty()) return result;
  std::vector<std::string> names;
  for (const Member& member : members_) {
    if (member.method != nullptr) names.push_back(member.name);
    put_sums(result, member.name, member.observer->sums(layer));
  }
  finish_layer(result, names, layer);
  return result;
}

artifact::TensorMap ScoreSet::state() const {
  artifact::TensorMap state;
  for (std::int64_t l = 0; l < config_.num_layers(); ++l) {
    for (const Member& member : members_) {
      for (auto& [name, sum] : member.observer->sums(l)) {
        state[state_name(l, member.name, name)] = sum.values;
      }
    }
  }
  return state;
}

void ScoreSet::restore(const artifact::TensorMap& state) {
  for (std::int64_t l = 0; l < config_.num_layers(); ++l) {
    for (Member& member : members_) {
      Sums sums = member.observer->sums(l);
      for (auto& [name, sum] : sums) {
        sum.values = state.at(state_name(l, member.name, name));
      }
      member.observer->restore(l, sums);
    }
  }
}

}  // namespace fettle::analyze
