// SPDX-License-Identifier: Apache-2.0
// Plans a merge of experts: one sweep over calibration data that shows how
// alike experts are, and the groups that this gives.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/trim_plan.h"
#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "sweep/sweep.h"
#include "trim/expert_groups.h"

namespace fettle::trim {

enum class Merge { kNone, kMSmoe, kHcSmoe };

struct MergeInput {
  model::CausalLm& model;
  std::vector<model::TokenBatch> data;
  sweep::SweepOptions sweep = {};
};

struct MergedExperts {
  // By layer: a group for each kept expert, in their order; none where dense.
  std::vector<std::vector<ExpertGroup>> groups;
  // Tokens that chose each expert, by layer.
  std::vector<std::vector<std::int64_t>> tokens;
  // Whether neurons are matched before they are averaged.
  bool align = false;
};

struct MergePlan {
  artifact::TrimPlan plan;  // keeps the first expert of each group
  MergedExperts experts;
};

// `plan` keeps whole experts: under m_smoe they are the ones that others join,
// under hc_smoe their number alone counts (within each router group). The
// router keeps the rows of the groups' first experts: the papers let all rows
// choose the merged expert, which stock layouts have no place for. Throws
// UserError when the data is empty, experts of a layer differ in width, or the
// plan cuts neurons.
MergePlan plan_merge(
    const MergeInput& input, const artifact::TrimPlan& plan, Merge merge);

// Bytes of RAM that planning and merging take beside a sweep's own.
std::int64_t merge_bytes(const model::ModelConfig& config);

}  // namespace fettle::trim
