// SPDX-License-Identifier: Apache-2.0
// Splitting rows among the threads that ATen uses: both ask the same OpenMP
// runtime, so at::set_num_threads holds here too.
#pragma once

#include <omp.h>

#include <cstdint>

namespace fettle::kernels::cpu {

// Calls f(begin, end) on pieces that cover [0, rows). `work` is the number of
// values a row touches: too little work stays on the calling thread.
template <class F>
void parallel_rows(std::int64_t rows, std::int64_t work, const F& f) {
  constexpr std::int64_t kWorthThreads = 1 << 15;
  if (rows < 2 || rows * work < kWorthThreads || omp_in_parallel()) {
    if (rows > 0) f(std::int64_t{0}, rows);
    return;
  }
#pragma omp parallel
  {
    const std::int64_t threads = omp_get_num_threads();
    const std::int64_t t = omp_get_thread_num();
    const std::int64_t begin = rows * t / threads;
    const std::int64_t end = rows * (t + 1) / threads;
    if (begin < end) f(begin, end);
  }
}

// Calls f(task) for each of [0, tasks), whichever thread is free taking the
// next.
template <class F>
void parallel_tasks(std::int64_t tasks, const F& f) {
#pragma omp parallel for schedule(dynamic) if (tasks > 1 && !omp_in_parallel())
  for (std::int64_t task = 0; task < tasks; ++task) f(task);
}

}  // namespace fettle::kernels::cpu
