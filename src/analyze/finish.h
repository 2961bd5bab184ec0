// SPDX-License-Identifier: Apache-2.0
// From a layer's sums to its scores: the last step of an analysis, and of a
// merge of several.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analyze/score_method.h"

namespace fettle::analyze {

// Puts an observer's sums into a layer under "score.sum", and takes them out.
void put_sums(
    artifact::LayerScores& layer, std::string_view score, const Sums& sums);
Sums take_sums(const artifact::LayerScores& layer, std::string_view score);

// Name under which the sums of BaseStatistics are kept.
inline constexpr std::string_view kBase = "base";

// Fills the scores of these names, mean_h, tokens and router_entropy of layer
// `index` from its sums. A dense layer has none. Throws UserError when a score
// is not finite, naming layer and expert.
void finish_layer(
    artifact::LayerScores& layer,
    const std::vector<std::string>& scores,
    std::int64_t index);

}  // namespace fettle::analyze
