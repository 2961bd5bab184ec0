// SPDX-License-Identifier: Apache-2.0
#include "chain/search.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "core/error.h"
#include "quant/allocation.h"

namespace fettle::chain {
namespace {

using model::WeightId;
using quant::AllocationItem;
using quant::Scheme;

// A group of many experts keeps at most so many choices of widths for a pair of
// schemes.
constexpr std::size_t kMostPlaces = 2048;

enum class Side { kInput, kOutput };

std::vector<Scheme> schemes_of(const ExpertPrice& expert, Side side) {
  std::vector<Scheme> result;
  for (const ExpertMatrix& matrix : expert.matrices) {
    const bool down = model::is_down_role(matrix.id.role);
    if (down != (side == Side::kOutput)) continue;
    for (const SchemePrice& price : matrix.schemes) {
      if (std::ranges::find(result, price.scheme) == result.end()) {
        result.push_back(price.scheme);
      }
    }
  }
  return result;
}

[[noreturn]] void refuse_schemes(const std::string& matrices) {
  throw UserError(
      "fit",
      "schemes",
      "expected a scheme that " + matrices + " can share, found none");
}

struct Point {
  std::int64_t width;
  std::int64_t bytes;
  double error;
};

// The lower convex hull of points by rising bytes, from the smallest on.
std::vector<Point> hull_of(const std::vector<Point>& points) {
  std::vector<Point> hull;
  for (const Point& point : points) {
    if (!hull.empty() && point.error >= hull.back().error) continue;
    while (hull.size() > 1) {
      const Point& a = hull[hull.size() - 2];
      const Point& b = hull.back();
      const double before =
          (a.error - b.error) * static_cast<double>(point.bytes - b.bytes);
      const double after =
          (b.error - point.error) * static_cast<double>(b.bytes - a.bytes);
      if (before > after) break;
      hull.pop_back();
    }
    hull.push_back(point);
  }
  return hull;
}

// Of options by rising bytes, those that none of fewer bytes is as good as.
template <typename Option>
void keep_best(std::vector<Option>& options) {
  std::ranges::stable_sort(options, [](const Option& a, const Option& b) {
    return std::pair(a.bytes, a.error) < std::pair(b.bytes, b.error);
  });
  double best = std::numeric_limits<double>::infinity();
  std::erase_if(options, [&](const Option& option) {
    if (option.error >= best) return true;
    best = option.error;
    return false;
  });
}

}  // namespace

Search::Search(
    const model::ModelReader& reader,
    const PriceTable& table,
    const Rules& rules)
    : reader_(reader), table_(table), rules_(rules) {
  for (const ExpertPrice& expert : table.experts) {
    all_products_ += expert.tokens * static_cast<double>(expert.width());
    all_neurons_ += static_cast<double>(expert.width());
  }
  for (auto& members : members_by_rule()) add_group(std::move(members));
  group_others();
}

// The wider of the two rules makes the groups.
std::vector<std::vector<std::size_t>> Search::members_by_rule() const {
  const int widths = static_cast<int>(rules_.widths);
  const int wider = std::max(widths, static_cast<int>(rules_.schemes));
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::size_t>> by;
  for (std::size_t e = 0; e < table_.experts.size(); ++e) {
    const ExpertPrice& expert = table_.experts[e];
    if (expert.matrices.empty()) continue;
    by[{wider < 2 ? expert.layer : 0, wider < 1 ? expert.expert : 0}].push_back(
        e);
  }
  std::vector<std::vector<std::size_t>> result;
  for (auto& [key, members] : by) result.push_back(std::move(members));
  return result;
}

std::vector<std::int64_t> Search::widths_of(const ExpertPrice& expert) const {
  const std::int64_t width = expert.width();
  const std::int64_t steps = std::max<std::int64_t>(rules_.width_steps, 1);
  std::int64_t step = std::max<std::int64_t>((width + steps - 1) / steps, 1);
  step = (step + rules_.multiple - 1) / rules_.multiple * rules_.multiple;
  std::vector<std::int64_t> widths;
  for (std::int64_t w = 0; w < width; w += step) {
    if (w >= rules_.min_width) widths.push_back(w);
  }
  widths.push_back(width);
  return widths;
}

Search::Option Search::priced(
    const ExpertPrice& expert, const Pair& pair, std::int64_t width) const {
  const ExpertChoice choice{width, pair.gate_up, pair.down};
  double error =
      cut_nats(table_, expert, width) + rounding_nats(table_, expert, choice);
  if (rules_.products_nats > 0 && all_products_ > 0) {
    error += rules_.products_nats * expert.tokens * static_cast<double>(width) /
             all_products_;
  }
  if (rules_.neurons_nats > 0 && all_neurons_ > 0) {
    error += rules_.neurons_nats * static_cast<double>(expert.width() - width) /
             all_neurons_;
  }
  return {expert_bytes(reader_, table_, expert, choice), error, 0, 0};
}

// Places are indices into the widths of the first member, which all share.
void Search::add_one_width(Group& group, std::int32_t pair) const {
  const Pair& schemes = group.pairs[pair];
  const auto widths = widths_of(table_.experts[group.members.front()]);
  for (std::size_t i = 0; i < widths.size(); ++i) {
    Option sum{0, 0, pair, static_cast<std::int32_t>(i)};
    for (const std::size_t member : group.members) {
      const ExpertPrice& expert = table_.experts[member];
      const Option one =
          priced(expert, schemes, std::min(widths[i], expert.width()));
      sum.bytes += one.bytes;
      sum.error += one.error;
    }
    group.options.push_back(sum);
  }
}

// Steps along all members' hulls, the best a byte first: the places.
void Search::add_free_widths(Group& group, std::int32_t index) const {
  Pair& pair = group.pairs[index];
  Option sum{0, 0, index, 0};
  for (std::size_t m = 0; m < group.members.size(); ++m) {
    const ExpertPrice& expert = table_.experts[group.members[m]];
    std::vector<Point> points;
    for (const std::int64_t width : widths_of(expert)) {
      const Option one = priced(expert, pair, width);
      points.push_back({width, one.bytes, one.error});
    }
    const std::vector<Point> hull = hull_of(points);
    sum.bytes += hull.front().bytes;
    sum.error += hull.front().error;
    pair.first.push_back(hull.front().width);
    for (std::size_t i = 1; i < hull.size(); ++i) {
      const std::int64_t bytes = hull[i].bytes - hull[i - 1].bytes;
      const double error = hull[i].error - hull[i - 1].error;
      pair.steps.push_back(
          {static_cast<std::int32_t>(m),
           hull[i].width,
           bytes,
           error,
           -error / static_cast<double>(bytes)});
    }
  }
  std::ranges::stable_sort(pair.steps, std::ranges::greater{}, &Step::slope);
  const std::size_t every = pair.steps.size() / kMostPlaces + 1;
  group.options.push_back(sum);
  for (std::size_t s = 0; s < pair.steps.size(); ++s) {
    sum.bytes += pair.steps[s].bytes;
    sum.error += pair.steps[s].error;
    sum.place = static_cast<std::int32_t>(s + 1);
    if ((s + 1) % every == 0 || s + 1 == pair.steps.size()) {
      group.options.push_back(sum);
    }
  }
}

void Search::add_group(std::vector<std::size_t> members) {
  Group group;
  group.members = std::move(members);
  group.one_width =
      group.members.size() == 1 || rules_.widths != Rules::Widths::kFree;
  const ExpertPrice& first = table_.experts[group.members.front()];
  for (const Scheme& gate_up : schemes_of(first, Side::kInput)) {
    for (const Scheme& down : schemes_of(first, Side::kOutput)) {
      if (rules_.one_scheme && !(gate_up == down)) continue;
      group.pairs.push_back({gate_up, down, {}, {}});
      const auto index = static_cast<std::int32_t>(group.pairs.size()) - 1;
      if (group.one_width) {
        add_one_width(group, index);
      } else {
        add_free_widths(group, index);
      }
    }
  }
  if (group.options.empty()) refuse_schemes("gate, up and down projections");
  keep_best(group.options);
  groups_.push_back(std::move(group));
}

void Search::take(
    const Group& group, const Option& option, FitPlan& plan) const {
  const Pair& pair = group.pairs[option.pair];
  const auto choose = [&](std::size_t member, std::int64_t width) {
    plan.experts[group.members[member]] = {width, pair.gate_up, pair.down};
  };
  if (group.one_width) {
    const auto widths = widths_of(table_.experts[group.members.front()]);
    for (std::size_t m = 0; m < group.members.size(); ++m) {
      const std::int64_t own = table_.experts[group.members[m]].width();
      choose(m, std::min(widths[option.place], own));
    }
    return;
  }
  for (std::size_t m = 0; m < group.members.size(); ++m) {
    choose(m, pair.first[m]);
  }
  for (std::int32_t s = 0; s < option.place; ++s) {
    choose(static_cast<std::size_t>(pair.steps[s].member), pair.steps[s].to);
  }
}

void Search::group_others() {
  std::map<std::pair<std::int64_t, int>, std::vector<std::size_t>> by;
  for (std::size_t i = 0; i < table_.others.size(); ++i) {
    const WeightId& id = table_.others[i].id;
    const auto part = static_cast<int>(quant::part_of(id.role).value());
    const bool alone = !rules_.alike_others || id.layer < 0;
    by[{id.layer, alone ? -1 - static_cast<int>(i) : part}].push_back(i);
  }
  for (auto& [key, members] : by) {
    std::vector<OtherOption> options;
    for (const SchemePrice& price : table_.others[members.front()].schemes) {
      OtherOption sum{price.scheme, 0, 0};
      const bool shared = std::ranges::all_of(members, [&](std::size_t i) {
        const OtherMatrix& other = table_.others[i];
        const auto found = std::ranges::find(
            other.schemes, price.scheme, &SchemePrice::scheme);
        if (found == other.schemes.end()) return false;
        sum.bytes += other.bytes[found - other.schemes.begin()];
        sum.error += table_.calibration.round * found->nats;
        return true;
      });
      if (shared) options.push_back(sum);
    }
    if (options.empty()) refuse_schemes("the matrices beside the experts");
    other_groups_.push_back(std::move(members));
    other_options_.push_back(std::move(options));
  }
}

FitPlan Search::within(std::int64_t budget) const {
  std::vector<AllocationItem> items;
  for (const Group& group : groups_) {
    AllocationItem& item = items.emplace_back();
    for (const Option& option : group.options) {
      item.options.push_back({option.bytes, option.error});
    }
  }
  for (const auto& options : other_options_) {
    AllocationItem& item = items.emplace_back();
    for (const OtherOption& option : options) {
      item.options.push_back({option.bytes, option.error});
    }
  }
  const quant::Allocation found =
      quant::allocate(items, {budget, table_.fixed_bytes});
  FitPlan plan;
  plan.experts.resize(table_.experts.size());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    take(groups_[g], groups_[g].options[found.choices[g]], plan);
  }
  plan.others.resize(table_.others.size());
  for (std::size_t g = 0; g < other_groups_.size(); ++g) {
    const OtherOption& option =
        other_options_[g][found.choices[groups_.size() + g]];
    for (const std::size_t i : other_groups_[g]) {
      plan.others[i] = option.scheme;
    }
  }
  plan.gap = found.gap;
  sum_plan(reader_, table_, plan);
  return plan;
}

std::int64_t Search::least() const {
  std::int64_t bytes = table_.fixed_bytes;
  for (const Group& group : groups_) bytes += group.options.front().bytes;
  for (const auto& options : other_options_) {
    bytes += std::ranges::min(options, {}, &OtherOption::bytes).bytes;
  }
  return bytes;
}

std::int64_t Search::most() const {
  std::int64_t bytes = table_.fixed_bytes;
  for (const Group& group : groups_) bytes += group.options.back().bytes;
  for (const auto& options : other_options_) {
    bytes += std::ranges::max(options, {}, &OtherOption::bytes).bytes;
  }
  return bytes;
}

}  // namespace fettle::chain
