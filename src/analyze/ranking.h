// SPDX-License-Identifier: Apache-2.0
// The order of all neurons of a model by a score, and what two orders share.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>
#include <vector>

#include "artifact/score_file.h"

namespace fettle::analyze {

// By layer, [S] int32: each neuron's place among all of the model, 0 the
// highest score; equal scores keep the order of the arrays. A dense
// layer's is empty.
std::vector<at::Tensor> rank_neurons(
    const artifact::ScoreFile& scores, const std::string& score);

// The neuron scores that depend on the data.
std::vector<std::string> data_scores(const artifact::ScoreFile& scores);

// Jaccard index of the upper halves of two rankings of the same neurons: 1 for
// the same halves, a third for unrelated ones. 1 where there are none.
double overlap(const at::Tensor& a, const at::Tensor& b);

}  // namespace fettle::analyze
