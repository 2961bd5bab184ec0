// SPDX-License-Identifier: Apache-2.0
// Which experts of a layer become one, by either of two published methods.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::trim {

// The experts of a group, the one whose router row stays first.
using ExpertGroup = std::vector<std::int64_t>;

// M-SMoE: each expert joins the one of `dominant` (ascending) whose router
// logits over the calibration tokens are most like its own, by cosine. `gram`
// [E, E]: sum over tokens of logits logits^T. Groups in the order of
// `dominant`. Source: Li et al., "Merge, then compress", ICLR 2024,
// section 3.1.
std::vector<ExpertGroup> group_by_router(
    const at::Tensor& gram, const std::vector<std::int64_t>& dominant);

// HC-SMoE: agglomerative clustering by average linkage of the experts' mean
// outputs [E, H] over the calibration tokens, by Euclidean distance, until
// `count` clusters are left. First of each cluster is its expert with the most
// `tokens` [E]; clusters ascend by it. Ties go to the lower index.
// Source: Chen et al., "Retraining-free merging of sparse MoE via hierarchical
// clustering", ICML 2025, section 3.2.
std::vector<ExpertGroup> cluster_by_output(
    const at::Tensor& mean_outputs,
    const std::vector<std::int64_t>& tokens,
    std::int64_t count);

}  // namespace fettle::trim
