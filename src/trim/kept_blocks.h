// SPDX-License-Identifier: Apache-2.0
// Trims of models that another tool stored in blocks of fp8 or MXFP4, without a
// code changed: experts go whole, or in whole blocks of neurons with their
// scales.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "artifact/trim_plan.h"
#include "model/weights/model_reader.h"

namespace fettle::trim {

// The form of a weight where codes are kept: in blocks where it is so stored,
// else as the reader writes it.
model::WeightForm kept_form(
    const model::ModelReader& reader, const model::WeightId& id);

// Neighbours that experts keep or lose together: whole blocks of each of their
// matrices. 1 where no expert has blocks.
std::int64_t kept_unit(const model::ModelReader& reader);

struct KeptChanges {
  bool refits = false;  // values of weights change: a repair or a merge
};

// Why `plan` can't be carried out with codes as they are, as an end of a
// sentence; empty where it can.
std::string why_not_kept(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const KeptChanges& changes);
// Why no plan at all can be carried out so on a model; empty where one may be.
std::string why_not_kept(
    const model::ModelReader& reader, const KeptChanges& changes);
// Throws UserError with it.
void require_kept(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const KeptChanges& changes);

// The bytes of codes and then of scales of a weight of kept_form's blocks. With
// `neurons`, ascending and whole blocks: of an expert's matrix cut to them.
// Throws UserError naming a weight that holds NaN.
at::Tensor kept_bytes(
    const model::ModelReader& reader,
    const model::WeightId& id,
    const std::vector<std::int64_t>* neurons);

}  // namespace fettle::trim
