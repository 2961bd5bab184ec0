// SPDX-License-Identifier: Apache-2.0
#include "chain/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "chain/fit_plan.h"

namespace fettle::chain {
namespace {

constexpr double kUnit = 0.01;
constexpr double kStraightFrom = 0.1;

// cut and round by their logarithms, growth, the curve by its logarithm.
using Point = std::array<double, 4>;

Point point_of(const Calibration& c) {
  return {std::log(c.cut), std::log(c.round), c.growth, std::log(c.curve)};
}

Calibration calibration_of(const Point& p) {
  return {
      .cut = std::exp(p[0]),
      .round = std::exp(p[1]),
      .growth = std::clamp(p[2], 0.0, 2.0),
      .curve = std::exp(p[3])};
}

// How far from the usual one a model is likely to be, and what an error of a
// point's logarithm weighs against that.
constexpr Point kSpread{1.0, 0.5, 0.3, 1.5};
constexpr double kPrior = 0.15;

using Loss = std::function<double(const Point&)>;

// Steps along the axes, longer where they help and shorter where not.
Point descend(const Loss& loss, Point at) {
  constexpr int kRounds = 400;
  constexpr double kLeast = 1e-3;
  Point step;
  step.fill(0.5);
  double best = loss(at);
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < at.size(); ++i) {
      bool moved = false;
      for (const double sign : {1.0, -1.0}) {
        Point tried = at;
        tried[i] += sign * step[i];
        const double value = loss(tried);
        if (value >= best) continue;
        best = value;
        at = tried;
        moved = true;
        break;
      }
      step[i] *= moved ? 1.5 : 0.5;
    }
    if (std::ranges::max(step) < kLeast) break;
  }
  return at;
}

}  // namespace

double Calibration::expected(double sum) const {
  return sum * (1 + curve * std::min(sum, kStraightFrom) / kUnit);
}

Json Calibration::to_json() const {
  return {{"cut", cut}, {"round", round}, {"growth", growth}, {"curve", curve}};
}

Calibration usual_calibration() {
  return {.cut = 1.0, .round = 1.8, .growth = 0.5, .curve = 0.06};
}

Calibration fitted_calibration(
    const PriceTable& table, const std::vector<Probe>& probes) {
  PriceTable tried = table;
  const Point usual = point_of(usual_calibration());
  const Loss loss = [&](const Point& at) {
    tried.calibration = calibration_of(at);
    double sum = 0;
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double off = kPrior * (at[i] - usual[i]) / kSpread[i];
      sum += off * off;
    }
    for (const Probe& probe : probes) {
      FitPlan plan = probe.plan;
      price_plan(tried, plan);
      if (probe.kl <= 0 || plan.nats() <= 0) continue;
      const double error = std::log(plan.nats() / probe.kl);
      sum += error * error;
    }
    return sum;
  };
  Point best = usual;
  double least = std::numeric_limits<double>::infinity();
  // From several places, since growth and curve can stand for each other.
  for (const Point& from :
       {Point{0, 0, 0, 0}, Point{0.5, 0.3, 0.3, 2}, Point{1, 0, 0, -1}}) {
    Point at = usual;
    for (std::size_t i = 0; i < at.size(); ++i) at[i] += from[i];
    at = descend(loss, at);
    if (loss(at) >= least) continue;
    least = loss(at);
    best = at;
  }
  return calibration_of(best);
}

}  // namespace fettle::chain
