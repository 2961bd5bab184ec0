// SPDX-License-Identifier: Apache-2.0
// The numbers that the page of a report draws, as JSON.
#pragma once

#include <string>
#include <vector>

#include "artifact/score_file.h"

namespace fettle::analyze {

// One number per expert: an expert's score, or the sum of its neurons'.
std::vector<double> importance(
    const artifact::LayerScores& layer, const std::string& name);

// An object of:
//   "scores"   [{"name", "rows" [L][E]}]
//   "kept"     [{"name", "rows" [L][E]}], the share of each expert's width that
//              is left when the better half of the model's neurons is kept
//   "load"     [L][E], an expert's tokens over the layer's mean
//   "entropy"  [L], of the routers, nats
//   "spread"   [L], entropy of the load, nats
//   "even"     [L], the logarithm of the number of experts
//   "overlap"  {"names" [R], "scores" [{"name", "pairs" [{"a", "b", "all",
//              "layers" [L]}]}]}, of merged files, see overlap()
//   "cost"     [{"name", "kept", "nats", "knee"}], of each score that predicts
//              a loss: what it expects of a cut that keeps so many percent of
//              the neurons, nats a token; see CutCurve::knee()
//   "by_file"  {"names" [F], "shares" [F][L][E]}, each file's choices of
//   experts,
//              percent of the layer's
// A dense layer's row is empty, its numbers null.
Json report_data(const artifact::ScoreFile& scores);

}  // namespace fettle::analyze
