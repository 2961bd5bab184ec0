// SPDX-License-Identifier: Apache-2.0
// What a resumed run must share with the run that saved the state, and what it
// may change: learning rates, their schedule, and the number of steps.
#pragma once

#include <cstdint>

#include "core/json.h"
#include "core/progress.h"
#include "tune/tune.h"

namespace fettle::tune {

// Model, teacher, data and options; with `judged` the held-out data too, which
// then decides what the run leaves.
Json run_identity(
    const TuneInput& input, const TuneOptions& options, bool judged);

// The identity without what a resumed run may change.
Json fixed_identity(Json identity);

// Tells what a run resumed after `steps` steps has changed. Throws UserError
// that names what it may not change, or a number of steps already passed.
void check_resumed_run(
    const Json& saved, const Json& now, std::int64_t steps, Reporter& reporter);

}  // namespace fettle::tune
