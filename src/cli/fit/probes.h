// SPDX-License-Identifier: Apache-2.0
// The few points that a fit measures to calibrate its prices by: a cut, a
// rounding, and the two together, carried out as the finished plan would be.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "artifact/score_file.h"
#include "chain/calibration.h"
#include "chain/domains.h"
#include "chain/plain.h"
#include "cli/fit/folder.h"

namespace fettle::cli {

struct ProbeInput {
  Session& session;
  FitFolder& folder;
  const model::ModelReader& reader;
  const chain::PriceTable& table;  // with the usual calibration
  const artifact::ScoreFile& scores;
  const std::vector<std::string>& held;
  Arguments quant = {};  // its other options
};

struct MeasuredProbe {
  std::string name;
  chain::FitPlan plan;
  double kl = 0;  // mean over files
  std::vector<chain::FileLoss> files = {};
};

struct Probes {
  std::vector<MeasuredProbe> points = {};
  // Whose text they were measured on.
  std::string text = {};

  // By the table's prices.
  chain::Calibration calibration(const chain::PriceTable& table) const;
  std::vector<chain::Domain> domains() const;
};

// Carries out and measures what the folder doesn't know yet; removes the
// models. None where it was stopped.
std::optional<Probes> measure_probes(const ProbeInput& input);

}  // namespace fettle::cli
