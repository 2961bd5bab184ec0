// SPDX-License-Identifier: Apache-2.0
// From passes over the training data to steps.
#pragma once

#include <cstdint>

#include "text/mixture.h"
#include "tune/options/tune_options.h"

namespace fettle::tune {

// Whether a packed sequence has a label to train on; others are left out.
bool has_target(const text::PackedSequence& sequence);

// Steps in which as many samples are drawn as `epochs` times there are, the
// last step being filled up: at least 1. With weights some samples come more
// often than others. `train` keeps its position.
std::int64_t steps_of_epochs(
    text::Mixture& train, double epochs, const TuneOptions& options);

}  // namespace fettle::tune
