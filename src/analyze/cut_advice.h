// SPDX-License-Identifier: Apache-2.0
// How much of a model can be cut: the loss that a score expects by the share of
// neurons that stay, where it bends, and what that means in words.
#pragma once

#include <string>
#include <vector>

#include "analyze/score_method.h"
#include "artifact/score_file.h"

namespace fettle::analyze {

struct CutCurve {
  std::string score = {};
  std::vector<double> kept = {};  // shares, falling from 1
  std::vector<double> nats = {};  // a token, rising from 0

  // Between the points, in proportion; of what lies below the last, the last's.
  double at(double share) const;
  // The least share down to which another percent of the neurons costs no more
  // than 0.001 nats.
  double knee() const;
  // A sentence with the losses at 75, 50 and 25 % and the knee; a warning where
  // half of the neurons is expected to be too little.
  std::string text() const;
};

// By a score that predicts losses (ScoreMethod::nats_per_score), at 40 shares.
CutCurve cut_curve(
    const artifact::ScoreFile& scores, const ScoreMethod& method);

// Of every score in the file that predicts losses.
std::vector<CutCurve> cut_curves(const artifact::ScoreFile& scores);

}  // namespace fettle::analyze
