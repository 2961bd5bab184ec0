// SPDX-License-Identifier: Apache-2.0
// Runs one job per expert: side by side on the CPU's threads when there are
// enough experts to share out, else one after another with the threads inside.
// An expert's own arithmetic is the same bits whichever thread runs it.
#pragma once

#include <cstdint>
#include <functional>

#include "model/dispatch.h"

namespace fettle::model {

// Calls job(e) for every expert that has rows, largest first. Exceptions are
// passed on.
void for_each_expert(
    const Dispatch& dispatch,
    bool on_cpu,
    const std::function<void(std::int64_t)>& job);

}  // namespace fettle::model
