// SPDX-License-Identifier: Apache-2.0
#include "chain/search.h"

#include <catch2/catch.hpp>
#include <limits>
#include <numeric>

#include "../artifact/tiny_model.h"
#include "artifact/model_writer.h"
#include "core/error.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using model::Role;
using quant::parse_scheme;

TinyModelOptions small(std::int64_t layers) {
  TinyModelOptions options;
  options.changes = {
      {"num_hidden_layers", layers},
      {"num_experts", 2},
      {"moe_intermediate_size", 4}};
  return options;
}

// Prices by hand: neurons of expert e cost e + 1 times 1, 2, 3, 4 cents, the
// last neuron most; rounding costs by bits, a scheme's table times the layer.
PriceTable table_of(const model::ModelReader& reader) {
  PriceTable table;
  table.grid.group = 0;
  table.grid.symmetric = true;
  const model::ModelConfig& config = reader.config();
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    for (std::int64_t e = 0; e < 2; ++e) {
      ExpertPrice expert{.layer = l, .expert = e};
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
  const TinyModel tiny(small(1));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = table_of(reader);
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
  const TinyModel tiny(small(1));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = table_of(reader);
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
  const TinyModel tiny(small(1));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = table_of(reader);
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

TEST_CASE("Plans say what was chosen to the stages that carry it out") {
  const TinyModel tiny(small(2));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = table_of(reader);
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
  const TinyModel tiny(small(1));
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
