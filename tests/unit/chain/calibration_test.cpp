// SPDX-License-Identifier: Apache-2.0
#include "chain/calibration.h"

#include <catch2/catch.hpp>

#include "chain/fit_plan.h"
#include "priced_model.h"

namespace fettle::chain {
namespace {

using fettle::testing::priced_table;
using fettle::testing::small_model;
using fettle::testing::TinyModel;
using quant::parse_scheme;

FitPlan plan_of(
    const PriceTable& table, std::int64_t width, const char* scheme) {
  FitPlan plan;
  for (std::size_t e = 0; e < table.experts.size(); ++e) {
    plan.experts.push_back({width, parse_scheme(scheme), parse_scheme(scheme)});
  }
  plan.others = {parse_scheme("keep")};
  return plan;
}

double nats_of(const PriceTable& table, FitPlan plan) {
  price_plan(table, plan);
  return plan.nats();
}

TEST_CASE("A calibration scales, grows with the cut and curves") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  PriceTable table = priced_table(reader);
  const FitPlan cut = plan_of(table, 1, "keep");
  const FitPlan rounded = plan_of(table, 4, "int2");
  const FitPlan both = plan_of(table, 1, "int2");
  // By hand: cuts 6 and 12 cents, rounding 25 and 50, of which 0.3 is left.
  REQUIRE(nats_of(table, cut) == Approx(0.18));
  REQUIRE(nats_of(table, rounded) == Approx(0.75));
  REQUIRE(nats_of(table, both) == Approx(0.18 + 0.3 * 0.75));
  table.calibration = {.cut = 2, .round = 3, .growth = 0.5};
  // A quarter is kept: growth doubles both.
  REQUIRE(nats_of(table, cut) == Approx(2 * 2 * 0.18));
  REQUIRE(nats_of(table, rounded) == Approx(3 * 0.75));
  REQUIRE(nats_of(table, both) == Approx(2 * 2 * 0.18 + 2 * 3 * 0.3 * 0.75));
  table.calibration = {.curve = 0.5};
  REQUIRE(table.calibration.expected(0.02) == Approx(0.02 * 2));
  REQUIRE(table.calibration.expected(0.3) == Approx(0.3 * 6));
  FitPlan curved = cut;
  price_plan(table, curved);
  REQUIRE(curved.cut_nats == Approx(0.18 * 6));
  REQUIRE(curved.round_nats == 0);
}

TEST_CASE("Measured points set the calibration, and none leave the usual one") {
  const TinyModel tiny(small_model(1));
  const model::ModelReader reader(tiny.path());
  PriceTable table = priced_table(reader);
  for (ExpertPrice& expert : table.experts) {
    for (double& nats : expert.cut) nats /= 20;
    for (ExpertMatrix& matrix : expert.matrices) {
      for (SchemePrice& price : matrix.schemes) price.nats /= 40;
    }
  }
  const std::vector<FitPlan> plans{
      plan_of(table, 1, "keep"),
      plan_of(table, 4, "int2"),
      plan_of(table, 1, "int2"),
      plan_of(table, 2, "keep"),
      plan_of(table, 4, "int4")};
  PriceTable real = table;
  real.calibration = {.cut = 2, .round = 2.5, .growth = 0.8, .curve = 0.3};
  std::vector<Probe> probes;
  for (std::size_t i = 0; i < 3; ++i) {
    probes.push_back({plans[i], nats_of(real, plans[i])});
  }
  probes.push_back({plans[4], 0.0});  // says nothing
  PriceTable fitted = table;
  fitted.calibration = fitted_calibration(table, probes);
  for (std::size_t i = 0; i < plans.size(); ++i) {
    CAPTURE(i, fitted.calibration.to_json().dump());
    // Those that were measured, and, less well, the others.
    REQUIRE(
        nats_of(fitted, plans[i]) ==
        Approx(nats_of(real, plans[i])).epsilon(i < 3 ? 0.05 : 0.3));
  }
  const Calibration none = fitted_calibration(table, {});
  const Calibration usual = usual_calibration();
  REQUIRE(none.cut == Approx(usual.cut).epsilon(1e-2));
  REQUIRE(none.round == Approx(usual.round).epsilon(1e-2));
  REQUIRE(none.curve == Approx(usual.curve).epsilon(1e-2));
}

}  // namespace
}  // namespace fettle::chain
