// SPDX-License-Identifier: Apache-2.0
// One layer's scores, checked and made comparable with other layers'.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/score_file.h"
#include "trim/plan.h"

namespace fettle::trim {

struct LayerValues {
  std::vector<float> scores;   // as measured: they give the order
  std::vector<double> values;  // normalised: compared across layers
};

// The values of every neuron of `layer` [S].
LayerValues neuron_values(
    const artifact::ScoreFile& scores,
    std::int64_t layer,
    const TrimOptions& options);

// The values of every expert of `layer` [E], by an expert score, or by the sum
// of a neuron score over its neurons.
LayerValues expert_values(
    const artifact::ScoreFile& scores,
    std::int64_t layer,
    const TrimOptions& options);

}  // namespace fettle::trim
