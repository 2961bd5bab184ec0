// SPDX-License-Identifier: Apache-2.0
// Runs jobs side by side on the CPU's threads when there are enough of them to
// share out, else one after another with the threads inside. A job's own
// arithmetic gives the same bits whichever thread runs it.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace fettle::model {

// run_side_by_side by falling size(i), so that no thread is left alone with a
// large one at the end.
void run_largest_first(
    std::vector<std::int64_t> order,
    const std::function<std::int64_t(std::int64_t)>& size,
    bool on_cpu,
    const std::function<void(std::int64_t)>& job);

// Calls job(e) for all of `order`, side by side on at most `most_threads` or
// one after another. Exceptions are passed on.
void run_side_by_side(
    const std::vector<std::int64_t>& order,
    bool on_cpu,
    const std::function<void(std::int64_t)>& job,
    std::int64_t most_threads = std::numeric_limits<std::int64_t>::max());

// The same for the numbers from 0 to `jobs`, in their order.
void run_side_by_side(
    std::int64_t jobs,
    bool on_cpu,
    const std::function<void(std::int64_t)>& job,
    std::int64_t most_threads = std::numeric_limits<std::int64_t>::max());

}  // namespace fettle::model
