// SPDX-License-Identifier: Apache-2.0
#include "model/weights/side_by_side.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <numeric>
#include <vector>

namespace fettle::model {

void run_largest_first(
    std::vector<std::int64_t> order,
    const std::function<std::int64_t(std::int64_t)>& size,
    bool on_cpu,
    const std::function<void(std::int64_t)>& job) {
  std::ranges::stable_sort(order, std::greater(), size);
  run_side_by_side(order, on_cpu, job);
}

void run_side_by_side(
    const std::vector<std::int64_t>& order,
    bool on_cpu,
    const std::function<void(std::int64_t)>& job,
    std::int64_t most_threads) {
  const std::int64_t jobs = std::ssize(order);
  const std::int64_t threads =
      std::min<std::int64_t>(at::get_num_threads(), most_threads);
  if (!on_cpu || threads == 1 || jobs < 2 * threads) {
    for (const std::int64_t e : order) job(e);
    return;
  }
  std::atomic<std::int64_t> next = 0;
  at::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t worker = begin; worker < end; ++worker) {
      const at::NoGradGuard no_grad;
      for (std::int64_t i = next++; i < jobs; i = next++) job(order[i]);
    }
  });
}

void run_side_by_side(
    std::int64_t jobs,
    bool on_cpu,
    const std::function<void(std::int64_t)>& job,
    std::int64_t most_threads) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(jobs));
  std::iota(order.begin(), order.end(), 0);
  run_side_by_side(order, on_cpu, job, most_threads);
}

}  // namespace fettle::model
