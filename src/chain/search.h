// SPDX-License-Identifier: Apache-2.0
// The best plan within a budget of bytes: how wide each expert stays and by
// which scheme each matrix is rounded, chosen together by one price.
#pragma once

#include <cstdint>
#include <vector>

#include "chain/fit_plan.h"

namespace fettle::chain {

// What an engine wants of a plan.
struct Rules {
  // Widths are multiples of it, or the whole width, or 0.
  std::int64_t multiple = 1;
  std::int64_t min_width = 0;
  // Which experts are equally wide: each as it likes, those of a layer, all.
  enum class Widths { kFree, kPerLayer, kUniform } widths = Widths::kFree;
  // Which matrices share a scheme: an expert's gate and up, and its down; all
  // of these in a layer; all in the model.
  enum class Schemes { kFree, kPerLayer, kUniform } schemes = Schemes::kFree;
  // One scheme for an expert's three matrices.
  bool one_scheme = false;
  // One scheme for what programs read as one matrix: those of a layer's
  // attention, of its shared experts, of its dense MLP.
  bool alike_others = false;
  // Choices at most for one expert's width.
  std::int64_t width_steps = 32;
  // What it is worth, in nats, to compute no routed expert at all: a neuron
  // costs in proportion to the tokens that pass it. 0: only bytes count.
  double products_nats = 0;
  // What it is worth, in nats, to keep all neurons; see best_within.
  double neurons_nats = 0;
};

class Search {
 public:
  // `reader` and `table` must outlive it.
  Search(
      const model::ModelReader& reader,
      const PriceTable& table,
      const Rules& rules);

  // Throws UserError naming the least budget that would do.
  FitPlan within(std::int64_t budget) const;
  // Bytes of the smallest plan, and of the largest.
  std::int64_t least() const;
  std::int64_t most() const;

 private:
  struct Option {
    std::int64_t bytes;
    double error;
    std::int32_t pair;   // of schemes
    std::int32_t place;  // a width's index, or how many steps are taken
  };
  // From one width of a member to the next on its convex hull.
  struct Step {
    std::int32_t member;
    std::int64_t to;  // width
    std::int64_t bytes;
    double error;
    double slope;
  };
  struct Pair {
    quant::Scheme gate_up, down;
    // Of members with free widths: their least, and the way on.
    std::vector<std::int64_t> first;
    std::vector<Step> steps;
  };
  struct OtherOption {
    quant::Scheme scheme;
    std::int64_t bytes;
    double error;
  };
  // Experts that share schemes, and maybe a width.
  struct Group {
    std::vector<std::size_t> members;
    bool one_width = false;
    std::vector<Pair> pairs;
    std::vector<Option> options;
  };

  std::vector<std::vector<std::size_t>> members_by_rule() const;
  void group_others();
  void add_group(std::vector<std::size_t> members);
  void add_one_width(Group& group, std::int32_t pair) const;
  void add_free_widths(Group& group, std::int32_t pair) const;
  std::vector<std::int64_t> widths_of(const ExpertPrice& expert) const;
  Option priced(
      const ExpertPrice& expert, const Pair& pair, std::int64_t width) const;
  void take(const Group& group, const Option& option, FitPlan& plan) const;
  const model::ModelReader& reader_;
  const PriceTable& table_;
  Rules rules_;
  double all_products_ = 0;
  double all_neurons_ = 0;
  std::vector<Group> groups_;
  // Of the table's others, those that share a scheme, and what these are.
  std::vector<std::vector<std::size_t>> other_groups_;
  std::vector<std::vector<OtherOption>> other_options_;
};

}  // namespace fettle::chain
