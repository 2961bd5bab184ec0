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

using quant::AllocationItem;
using quant::Scheme;

// A group of many experts keeps at most so many choices of widths for a pair of
// schemes.
constexpr std::size_t kMostPlaces = 2048;

double nats_of(const ExpertMatrix& matrix, const Scheme& scheme) {
  const auto found =
      std::ranges::find(matrix.schemes, scheme, &SchemePrice::scheme);
  FETTLE_ASSERT(found != matrix.schemes.end());
  return found->nats;
}

const Scheme& scheme_for(const ExpertMatrix& matrix, const ExpertChoice& c) {
  return model::is_down_role(matrix.id.role) ? c.down : c.gate_up;
}

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

double rounding_nats(const ExpertPrice& expert, const ExpertChoice& choice) {
  double nats = 0;
  for (const ExpertMatrix& matrix : expert.matrices) {
    nats += matrix.share[choice.width] *
            nats_of(matrix, scheme_for(matrix, choice));
  }
  return nats;
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

void sum_plan(
    const model::ModelReader& reader, const PriceTable& table, FitPlan& plan) {
  plan.bytes = table.fixed_bytes;
  plan.cut_nats = plan.round_nats = 0;
  double products = 0;
  double all = 0;
  for (std::size_t e = 0; e < table.experts.size(); ++e) {
    const ExpertPrice& expert = table.experts[e];
    const ExpertChoice& choice = plan.experts[e];
    plan.bytes += expert_bytes(reader, table, expert, choice);
    plan.cut_nats += expert.cut[choice.width];
    plan.round_nats += rounding_nats(expert, choice);
    products += expert.tokens * static_cast<double>(choice.width);
    all += expert.tokens * static_cast<double>(expert.width());
  }
  for (std::size_t i = 0; i < table.others.size(); ++i) {
    const OtherMatrix& other = table.others[i];
    const auto found =
        std::ranges::find(other.schemes, plan.others[i], &SchemePrice::scheme);
    FETTLE_ASSERT(found != other.schemes.end());
    plan.bytes += other.bytes[found - other.schemes.begin()];
    plan.round_nats += found->nats;
  }
  plan.products = all > 0 ? products / all : 1;
}

Search::Search(
    const model::ModelReader& reader,
    const PriceTable& table,
    const Rules& rules)
    : reader_(reader), table_(table), rules_(rules) {
  for (const ExpertPrice& expert : table.experts) {
    all_products_ += expert.tokens * static_cast<double>(expert.width());
  }
  for (auto& members : members_by_rule()) add_group(std::move(members));
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
  double error = expert.cut[width] + rounding_nats(expert, choice);
  if (rules_.products_nats > 0 && all_products_ > 0) {
    error += rules_.products_nats * expert.tokens * static_cast<double>(width) /
             all_products_;
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
  if (group.options.empty()) {
    throw UserError(
        "fit",
        "schemes",
        "expected a scheme that gate, up and down projections can share, "
        "found none");
  }
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

FitPlan Search::within(std::int64_t budget) const {
  std::vector<AllocationItem> items;
  for (const Group& group : groups_) {
    AllocationItem& item = items.emplace_back();
    for (const Option& option : group.options) {
      item.options.push_back({option.bytes, option.error});
    }
  }
  for (const OtherMatrix& other : table_.others) {
    AllocationItem& item = items.emplace_back();
    for (std::size_t s = 0; s < other.schemes.size(); ++s) {
      item.options.push_back({other.bytes[s], other.schemes[s].nats});
    }
  }
  const quant::Allocation found =
      quant::allocate(items, {budget, table_.fixed_bytes});
  FitPlan plan;
  plan.experts.resize(table_.experts.size());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    take(groups_[g], groups_[g].options[found.choices[g]], plan);
  }
  for (std::size_t i = 0; i < table_.others.size(); ++i) {
    plan.others.push_back(
        table_.others[i].schemes[found.choices[groups_.size() + i]].scheme);
  }
  plan.gap = found.gap;
  sum_plan(reader_, table_, plan);
  return plan;
}

std::int64_t Search::least() const {
  std::int64_t bytes = table_.fixed_bytes;
  for (const Group& group : groups_) bytes += group.options.front().bytes;
  for (const OtherMatrix& other : table_.others) {
    bytes += std::ranges::min(other.bytes);
  }
  return bytes;
}

std::int64_t Search::most() const {
  std::int64_t bytes = table_.fixed_bytes;
  for (const Group& group : groups_) bytes += group.options.back().bytes;
  for (const OtherMatrix& other : table_.others) {
    bytes += std::ranges::max(other.bytes);
  }
  return bytes;
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
  std::map<std::pair<std::int64_t, std::int64_t>, const ExpertChoice*> experts;
  for (std::size_t e = 0; e < table.experts.size(); ++e) {
    const ExpertPrice& expert = table.experts[e];
    experts[{expert.layer, expert.expert}] = &plan.experts[e];
  }
  std::map<std::pair<std::int64_t, model::Role>, Scheme> others;
  for (std::size_t i = 0; i < table.others.size(); ++i) {
    const model::WeightId& id = table.others[i].id;
    others[{id.layer, id.role}] = plan.others[i];
  }
  const Scheme keep = quant::parse_scheme("keep");
  return artifact::QuantPlan::of(
      reader.config(), [&](const model::WeightId& id) {
        if (model::is_expert_role(id.role)) {
          const ExpertChoice& choice = *experts.at({id.layer, id.expert});
          if (choice.width == 0) return quant::scheme_name(keep);
          return quant::scheme_name(
              model::is_down_role(id.role) ? choice.down : choice.gate_up);
        }
        const auto found = others.find({id.layer, id.role});
        return quant::scheme_name(found == others.end() ? keep : found->second);
      });
}

}  // namespace fettle::chain
