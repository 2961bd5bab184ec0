// SPDX-License-Identifier: Apache-2.0
// A method of tuning is a list of trainable parts.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/model_reader.h"
#include "tune/trainable_part.h"
#include "tune/tune_options.h"

namespace fettle::tune {

// The parts of options.method, which check_options has seen. The reader must
// outlive them.
std::vector<std::unique_ptr<TrainablePart>> make_parts(
    const TuneOptions& options,
    const model::ModelReader& reader,
    at::Device device);

// Bytes that the parts reach: masters, moments, gradients, the update's working
// set, and rows frozen by new choices.
std::int64_t part_bytes(
    const TuneOptions& options, const model::ModelConfig& config);

}  // namespace fettle::tune
