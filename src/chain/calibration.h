// SPDX-License-Identifier: Apache-2.0
// From what the second order tells to the KL that is measured. Measured KL is
// more: routers change their choice, errors are not small, the tokens that a
// cut is fitted to flatter it, and output weights that make up for what is cut
// grow, so that their rounding costs more. How much differs from model to
// model: a few measured points say it.
#pragma once

#include <vector>

#include "core/json.h"

namespace fettle::chain {

struct PriceTable;
struct FitPlan;

struct Calibration {
  double cut = 1;     // nats of cuts count so many times
  double round = 1;   // and those of rounding
  double growth = 0;  // an expert's by (its neurons / those it keeps)^growth
  // A sum of x nats becomes x (1 + curve x / 0.01); from 0.1 nats on as there.
  double curve = 0;

  double expected(double sum) const;
  Json to_json() const;
};

// Where nothing is measured: that of a 14.5 M model of text
// (docs/fit-price.md).
Calibration usual_calibration();

// A plan that was carried out, and its KL from the model as it is.
struct Probe {
  const FitPlan& plan;
  double kl = 0;
};

// The calibration by which the table's prices come nearest to what was
// measured, in logarithms; where points leave it open, near the usual one.
// Deterministic. Points of no KL at all say nothing.
Calibration fitted_calibration(
    const PriceTable& table, const std::vector<Probe>& probes);

}  // namespace fettle::chain
