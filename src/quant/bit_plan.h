// SPDX-License-Identifier: Apache-2.0
// A plan that gives each weight of a model the scheme by which all of them
// together lose least within a budget of bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/quant_plan.h"
#include "model/weights/model_reader.h"
#include "quant/allocation.h"
#include "quant/errors.h"

namespace fettle::quant {

struct BitPlan {
  artifact::QuantPlan plan = {};
  Allocation allocation = {};
  std::int64_t bytes = 0;  // of the whole model
};

// Sizes of the weights that have a choice, and the bytes of all others.
struct ChoiceSize {
  std::int64_t weights = 0;      // numbers with a choice
  std::int64_t fixed_bytes = 0;  // of everything without one
};
ChoiceSize choice_size(
    const model::ModelReader& reader, const QuantErrors& errors);

// The best plan of at most `budget` bytes for the whole model, by nats where
// errors were measured with prices. Throws UserError
// naming the smallest budget that would do when none fits.
BitPlan plan_bits(
    const model::ModelReader& reader,
    const QuantErrors& errors,
    std::int64_t budget);

}  // namespace fettle::quant
