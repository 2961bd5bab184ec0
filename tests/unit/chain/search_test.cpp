// SPDX-License-Identifier: Apache-2.0
#include "chain/search.h"

#include <catch2/catch.hpp>
#include <limits>
#include <numeric>

#include "../artifact/tiny_model.h"
#include "artifact/model_writer.h"
#include "chain/frontier.h"
#include "core/error.h"
#include "priced_model.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::priced_table;
using fettle::testing::small_model;
using fettle::testing::TinyModel;
using model::Role;
using quant::parse_scheme;

// All choices of all experts, one after the other.
struct Slow {
  const model::ModelReader& reader;
  const PriceTable& table;
  std::int64_t budget;
  std::function<bool(const FitPlan&)> allowed = [](const FitPlan&) {
    return true;
  };
  double products_nats = 0;
  double best = std::numeric_limits<double>::infinity();

  void search(FitPlan plan, std::size_t e) {
    if (e == table.experts.size()) return rate(plan);
    for (std::int64_t width = 0; width <= 4; ++width) {
      for (const char* gate_up : {"int8", "int4", "int2"}) {
        for (const char* down : {"int8", "int4", "int2"}) {
          plan.experts[e] = {width, parse_scheme(gate_up), parse_scheme(down)};
          search(plan, e + 1);
        }
      }
    }
  }

  void rate(FitPlan& plan) {
    if (!allowed(plan)) return;
    for (const SchemePrice& other : table.others.front().schemes) {
      plan.others = {other.scheme};
      sum_plan(reader, table, plan);
      if (plan.bytes > budget) continue;
      best = std::min(best, plan.nats() + products_nats * plan.products);
    }
  }

  double run() {
    FitPlan plan;
    plan.experts.resize(table.experts.size());
    search(plan, 0);
    return best;
  }
};

TEST_CASE("The search finds what trying everything finds") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = priced_table(reader);
  const Search search(reader, table, {});
  for (const double share : {0.0, 0.2, 0.45, 0.7, 1.0}) {
    const auto budget =
        search.least() +
        static_cast<std::int64_t>(
            share * static_cast<double>(search.most() - search.least()));
    CAPTURE(share, budget);
    const FitPlan plan = search.within(budget);
    REQUIRE(plan.bytes <= budget);
    REQUIRE(plan.gap == 0);
    REQUIRE(plan.nats() == Approx(Slow{reader, table, budget}.run()));
  }
  REQUIRE_THROWS_WITH(search.within(search.least() - 1), Contains("budget"));
  REQUIRE(search.within(search.most()).nats() == 0);
}

TEST_CASE("Products have their price") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = priced_table(reader);
  const Search plain(reader, table, {});
  const std::int64_t budget = (plain.least() + plain.most()) / 2;
  Rules rules;
  rules.products_nats = 0.2;
  const FitPlan fast = Search(reader, table, rules).within(budget);
  REQUIRE(fast.products < plain.within(budget).products);
  Slow slow{reader, table, budget};
  slow.products_nats = 0.2;
  REQUIRE(fast.nats() + 0.2 * fast.products == Approx(slow.run()));
}

bool one_width(const FitPlan& plan) {
  return plan.experts[0].width == plan.experts[1].width;
}

bool one_pair(const FitPlan& plan) {
  return plan.experts[0].gate_up == plan.experts[1].gate_up &&
         plan.experts[0].down == plan.experts[1].down;
}

TEST_CASE("An engine's rules bound the same search") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = priced_table(reader);
  Rules rules;
  Slow slow{reader, table, 0};
  SECTION("one width and one pair of schemes") {
    rules.widths = Rules::Widths::kPerLayer;
    slow.allowed = [](const FitPlan& p) { return one_width(p) && one_pair(p); };
  }
  SECTION("alike schemes alone leave widths free, on their hulls") {
    rules.schemes = Rules::Schemes::kUniform;
    slow.allowed = one_pair;
  }
  SECTION("one scheme an expert") {
    rules.one_scheme = true;
    slow.allowed = [](const FitPlan& p) {
      return p.experts[0].gate_up == p.experts[0].down &&
             p.experts[1].gate_up == p.experts[1].down;
    };
  }
  SECTION("widths in twos, and no expert empty") {
    rules.multiple = 2;
    rules.min_width = 2;
    slow.allowed = [](const FitPlan& p) {
      return std::ranges::all_of(p.experts, [](const ExpertChoice& c) {
        return c.width == 2 || c.width == 4;
      });
    };
  }
  const Search search(reader, table, rules);
  for (const double share : {0.3, 0.8}) {
    slow.budget =
        search.least() +
        static_cast<std::int64_t>(
            share * static_cast<double>(search.most() - search.least()));
    slow.best = std::numeric_limits<double>::infinity();
    const FitPlan plan = search.within(slow.budget);
    REQUIRE(plan.bytes <= slow.budget);
    REQUIRE(slow.allowed(plan));
    const double best = slow.run();
    REQUIRE(plan.nats() >= best - 1e-12);
    // Groups with free widths choose among the corners of a hull.
    const bool hull = rules.schemes == Rules::Schemes::kUniform;
    REQUIRE(plan.nats() <= (hull ? 1.25 : 1) * best + 1e-12);
  }
}

TEST_CASE("A chosen plan costs the more the fewer tokens priced it") {
  REQUIRE(chosen_cost(1 << 20) == 1.5);
  REQUIRE(chosen_cost(131072) == 1.5);
  REQUIRE(chosen_cost(32768) == Approx(3));
  REQUIRE(chosen_cost(8192) == Approx(6));
  REQUIRE(chosen_cost(0) == 6);
  FitPlan plan;
  plan.cut_nats = 1;
  plan.round_nats = 2;
  REQUIRE(as_chosen(plan, 32768).nats() == Approx(9));
}

TEST_CASE("So many neurons are kept as were asked for") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = priced_table(reader);
  const Search search(reader, table, {});
  const std::int64_t budget =
      search.least() + (search.most() - search.least()) / 3;
  const PlanSpace free{reader, table};
  const double least = best_within(free, budget).kept + 0.125;
  PlanSpace wide = free;
  wide.keep_min = least;
  const FitPlan plan = best_within(wide, budget);
  REQUIRE(plan.kept >= least);
  REQUIRE(plan.bytes <= budget);
  Slow slow{reader, table, budget, [least](const FitPlan& p) {
              const auto kept = p.experts[0].width + p.experts[1].width;
              return static_cast<double>(kept) / 8 >= least;
            }};
  REQUIRE(plan.nats() <= 1.5 * slow.run());
  REQUIRE(fastest(wide, budget, {}).kept >= least);
  REQUIRE_THROWS_WITH(
      best_within(wide, search.least()), Contains("--keep-min"));
}

TEST_CASE("What a program reads as one matrix has one scheme") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  PriceTable table = priced_table(reader);
  const auto add = [&](Role role, double nats) {
    table.others.push_back(
        {{role, 0},
         {{parse_scheme("int8"), 0}, {parse_scheme("int4"), nats}},
         {100, 50}});
  };
  add(Role::kQProj, 0.1);
  add(Role::kKProj, 0.0001);
  Rules rules;
  rules.alike_others = true;
  for (const bool alike : {false, true}) {
    rules.alike_others = alike;
    const Search search(reader, table, rules);
    const FitPlan plan = search.within(search.most() - 50);
    REQUIRE((plan.others[1] == plan.others[2]) == alike);
  }
  table.others[2].schemes = {{parse_scheme("int2"), 0}};
  table.others[2].bytes = {30};
  REQUIRE_THROWS_WITH(Search(reader, table, rules), Contains("can share"));
}

TEST_CASE("A scheme that is forbidden is chosen nowhere") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  PriceTable table = priced_table(reader);
  forbid(table, parse_scheme("int8"));
  REQUIRE(table.others.front().bytes == std::vector<std::int64_t>{352});
  const Search search(reader, table, {});
  const FitPlan plan = search.within(search.most());
  REQUIRE(plan.experts.front().down == parse_scheme("int4"));
  forbid(table, parse_scheme("int4"));
  REQUIRE_THROWS_WITH(
      forbid(table, parse_scheme("int2")), Contains("another scheme"));
}

TEST_CASE("Plans say what was chosen to the stages that carry it out") {
  const TinyModel tiny(small_model(2));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = priced_table(reader);
  FitPlan plan;
  plan.experts = {
      {2, parse_scheme("int4"), parse_scheme("int8")},
      {0, parse_scheme("int2"), parse_scheme("int2")},
      {4, parse_scheme("int8"), parse_scheme("int4")},
      {1, parse_scheme("int2"), parse_scheme("int4")}};
  plan.others = {parse_scheme("int8")};
  const artifact::TrimPlan cut = trim_plan(reader, table, plan);
  cut.check_against(reader.config());
  REQUIRE(cut.model_fingerprint == reader.fingerprint());
  const auto& first = cut.layers[0].experts;
  REQUIRE(first[0].neurons == std::vector<std::int64_t>{2, 3});
  REQUIRE(first[1].neurons.empty());
  REQUIRE(cut.layers[1].experts[0].width() == 4);
  const artifact::QuantPlan rounded = quant_plan(reader, table, plan);
  rounded.check_against(reader.config());
  REQUIRE(rounded.model_fingerprint.empty());
  REQUIRE(rounded.scheme({Role::kExpertUp, 0, 0}) == "int4");
  REQUIRE(rounded.scheme({Role::kExpertDown, 0, 0}) == "int8");
  REQUIRE(rounded.scheme({Role::kExpertDown, 0, 1}) == "keep");
  REQUIRE(rounded.scheme({Role::kExpertGate, 1, 1}) == "int2");
  REQUIRE(rounded.scheme({Role::kEmbedTokens}) == "int8");
  REQUIRE(rounded.scheme({Role::kQProj, 1}) == "keep");
}

TEST_CASE("A matrix takes what the quant stage will write") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  quant::GridOptions grid{.group = 0, .symmetric = true};
  const model::WeightId gate{Role::kExpertGate, 0, 1};
  const model::WeightId down{Role::kExpertDown, 0, 1};
  const auto keep = parse_scheme("keep");
  const std::int64_t hidden = reader.config().hidden_size;
  REQUIRE(matrix_bytes(reader, gate, keep, grid, 3) == 3 * hidden * 4);
  REQUIRE(matrix_bytes(reader, down, keep, grid, 3) == 3 * hidden * 4);
  REQUIRE(matrix_bytes(reader, down, keep, grid, 0) == 0);
  const auto int4 = parse_scheme("int4");
  REQUIRE(
      matrix_bytes(reader, gate, int4, grid, 3) ==
      quant::planned_header(int4, grid, 3, hidden).bytes());
  REQUIRE(
      matrix_bytes(reader, down, int4, grid, 3) ==
      quant::planned_header(int4, grid, hidden, 3).bytes());
}

}  // namespace
}  // namespace fettle::chain
