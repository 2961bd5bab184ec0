// SPDX-License-Identifier: Apache-2.0
#include "quant/allocation.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/bytes.h"
#include "core/error.h"
#include "quant/allocation_relaxed.h"

namespace fettle::quant {
namespace {

// A share of the least error: differences below it count as rounding.
constexpr double kRounding = 1e-12;

// Choices of the items in the core; all other items are as relaxed.
struct State {
  std::int64_t bytes;
  double error;
  std::int32_t node;
};

// How a state came to be.
struct Node {
  std::int32_t before;  // node, or -1
  std::int32_t candidate;
};

class Core {
 public:
  Core(const Relaxed& relaxed, std::int64_t max_states)
      : relaxed_(relaxed),
        max_states_(max_states),
        inside_(relaxed.taken.size(), false),
        best_(relaxed.taken),
        up_(relaxed.broken),
        down_(relaxed.broken),
        states_{{relaxed.bytes, relaxed.error, -1}} {}

  Allocation solve();

 private:
  void fill_greedily();
  bool may_be_better(double bound) const {
    return bound < best_error_ - kRounding * best_error_;
  }
  double bound(std::int64_t bytes, double error) const;
  void skip_inside();
  // False where that would take too many states.
  bool take_in(std::int32_t item);
  std::vector<std::int32_t> in_doubt(std::int32_t item) const;
  void expand(std::int32_t item, const std::vector<std::int32_t>& candidates);
  void keep(const State& state, std::int32_t candidate);
  double gap() const;

  const Relaxed& relaxed_;
  std::int64_t max_states_;
  std::vector<bool> inside_;
  std::vector<std::int32_t> best_;  // but for the changes of best_node_
  double best_error_ = std::numeric_limits<double>::infinity();
  std::int32_t best_node_ = -1;
  // Steps from up_ on, and before down_, have not been looked at.
  std::size_t up_;
  std::size_t down_;
  std::vector<State> states_;  // by rising bytes and falling error
  std::vector<State> next_;
  std::vector<Node> nodes_;
};

// The relaxed choice with every later step that still fits.
void Core::fill_greedily() {
  std::int64_t bytes = relaxed_.bytes;
  for (std::size_t s = relaxed_.broken; s < relaxed_.steps.size(); ++s) {
    const HullStep& step = relaxed_.steps[s];
    const Candidate& to = relaxed_.candidates[step.to];
    std::int32_t& now = best_[step.item];
    const std::int64_t more = to.bytes - relaxed_.candidates[now].bytes;
    if (bytes + more > relaxed_.budget) continue;
    bytes += more;
    now = step.to;
  }
  best_error_ = 0;
  for (const std::int32_t c : best_) {
    best_error_ += relaxed_.candidates[c].error;
  }
}

// Items outside the core save at most the next slope up a byte that is left,
// and lose at least the next slope down a byte that is too many.
double Core::bound(std::int64_t bytes, double error) const {
  const auto left = static_cast<double>(relaxed_.budget - bytes);
  if (left >= 0) {
    return up_ < relaxed_.steps.size()
               ? error - left * relaxed_.steps[up_].slope
               : error;
  }
  return down_ > 0 ? error - left * relaxed_.steps[down_ - 1].slope
                   : std::numeric_limits<double>::infinity();
}

void Core::skip_inside() {
  const auto& steps = relaxed_.steps;
  while (up_ < steps.size() && inside_[steps[up_].item]) ++up_;
  while (down_ > 0 && inside_[steps[down_ - 1].item]) --down_;
}

// The candidates that could be part of a better choice.
std::vector<std::int32_t> Core::in_doubt(std::int32_t item) const {
  const Candidate& now = relaxed_.candidates[relaxed_.taken[item]];
  std::vector<std::int32_t> result;
  for (auto c = relaxed_.first[item]; c < relaxed_.first[item + 1]; ++c) {
    const Candidate& other = relaxed_.candidates[c];
    const double loss =
        other.error - now.error +
        relaxed_.slope() * static_cast<double>(other.bytes - now.bytes);
    if (c == relaxed_.taken[item] || may_be_better(relaxed_.bound() + loss)) {
      result.push_back(c);
    }
  }
  return result;
}

void Core::keep(const State& state, std::int32_t candidate) {
  const auto node = static_cast<std::int32_t>(nodes_.size());
  nodes_.push_back({state.node, candidate});
  next_.push_back({state.bytes, state.error, node});
  if (state.bytes <= relaxed_.budget && state.error < best_error_) {
    if (best_node_ < 0) best_ = relaxed_.taken;
    best_error_ = state.error;
    best_node_ = node;
  }
}

// Each state with each candidate, merged by bytes; of those that are no better
// than one of fewer bytes, none is kept.
void Core::expand(
    std::int32_t item, const std::vector<std::int32_t>& candidates) {
  const Candidate& now = relaxed_.candidates[relaxed_.taken[item]];
  struct Cursor {
    std::int64_t more;
    double loss;
    std::int32_t candidate;
    std::size_t place = 0;
    State head = {};
  };
  std::vector<Cursor> cursors;
  const auto advance = [&](Cursor& cursor) {
    for (; cursor.place < states_.size(); ++cursor.place) {
      const State& from = states_[cursor.place];
      cursor.head = {
          from.bytes + cursor.more, from.error + cursor.loss, from.node};
      if (may_be_better(bound(cursor.head.bytes, cursor.head.error))) return;
    }
  };
  for (const std::int32_t c : candidates) {
    const Candidate& to = relaxed_.candidates[c];
    cursors.push_back({to.bytes - now.bytes, to.error - now.error, c});
    advance(cursors.back());
  }
  double last = std::numeric_limits<double>::infinity();
  next_.clear();
  while (true) {
    Cursor* least = nullptr;
    for (Cursor& cursor : cursors) {
      if (cursor.place == states_.size()) continue;
      if (least == nullptr || cursor.head.bytes < least->head.bytes ||
          (cursor.head.bytes == least->head.bytes &&
           cursor.head.error < least->head.error)) {
        least = &cursor;
      }
    }
    if (least == nullptr) break;
    if (least->head.error < last) {
      last = least->head.error;
      keep(least->head, least->candidate);
    }
    ++least->place;
    advance(*least);
  }
  std::swap(states_, next_);
}

bool Core::take_in(std::int32_t item) {
  const std::vector<std::int32_t> candidates = in_doubt(item);
  if (candidates.size() > 1 &&
      nodes_.size() + states_.size() * candidates.size() >
          static_cast<std::size_t>(max_states_)) {
    return false;
  }
  inside_[item] = true;
  skip_inside();
  if (candidates.size() > 1) expand(item, candidates);
  return true;
}

double Core::gap() const {
  double least = best_error_;
  for (const State& state : states_) {
    least = std::min(least, bound(state.bytes, state.error));
  }
  return best_error_ - least;
}

Allocation Core::solve() {
  Allocation result;
  fill_greedily();
  const auto& steps = relaxed_.steps;
  bool upward = true;
  bool proven = relaxed_.whole();
  while (!proven) {
    const bool has_up = up_ < steps.size();
    if (states_.empty() || (!has_up && down_ == 0)) {
      proven = true;
    } else {
      const bool up = has_up && (upward || down_ == 0);
      if (!take_in(steps[up ? up_ : down_ - 1].item)) break;
      upward = !up;
    }
  }
  if (!proven) result.gap = gap();
  for (std::int32_t n = best_node_; n >= 0; n = nodes_[n].before) {
    const Candidate& candidate = relaxed_.candidates[nodes_[n].candidate];
    best_[candidate.item] = nodes_[n].candidate;
  }
  for (const std::int32_t c : best_) {
    const Candidate& candidate = relaxed_.candidates[c];
    result.choices.push_back(candidate.option);
    result.bytes += candidate.bytes;
    result.error += candidate.error;
  }
  result.states = static_cast<std::int64_t>(nodes_.size());
  return result;
}

}  // namespace

std::int64_t smallest_budget(
    std::span<const AllocationItem> items, std::int64_t fixed) {
  std::int64_t total = fixed;
  for (const AllocationItem& item : items) {
    FETTLE_ASSERT(!item.options.empty());
    total += std::ranges::min(item.options, {}, &AllocationOption::bytes).bytes;
  }
  return total;
}

Allocation allocate(
    std::span<const AllocationItem> items,
    const AllocationBudget& budget,
    std::int64_t max_states) {
  const std::int64_t smallest = smallest_budget(items, budget.fixed);
  if (smallest > budget.bytes) {
    throw UserError(
        "quant",
        "budget",
        fmt::format(
            "expected at least {} ({} bytes), found {} ({}); give more, or add "
            "a candidate of fewer bits",
            format_bytes(smallest),
            smallest,
            format_bytes(budget.bytes),
            budget.bytes));
  }
  const Relaxed relaxed = relax(items, budget.bytes - budget.fixed);
  return Core(relaxed, max_states).solve();
}

}  // namespace fettle::quant
