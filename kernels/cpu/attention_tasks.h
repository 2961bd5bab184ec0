// SPDX-License-Identifier: Apache-2.0
// Runs one task per key head of each sequence, each with scratch memory.
#pragma once

#include <memory>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/parallel.h"

namespace fettle::kernels::cpu {

// The most that a task takes, forward or backward: blocks of 64 are no narrower
// than any vector.
inline std::size_t attention_scratch(
    const AttentionArgs& a, std::int64_t task) {
  constexpr std::int64_t kBlock = 64;
  const std::int64_t s = task / a.kv_heads;
  const auto up = [](std::int64_t n) {
    return (n + kBlock - 1) / kBlock * kBlock;
  };
  const std::int64_t rows = up(a.starts[s + 1] - a.starts[s]) + kBlock;
  return static_cast<std::size_t>(
      3 * rows * (up(a.key_size) + up(a.value_size)) + 2 * kBlock * kBlock);
}

// Calls f(task, memory), whichever thread is free taking the next task.
template <class F>
void for_each_attention_task(const AttentionArgs& args, const F& f) {
  parallel_tasks(args.sequences * args.kv_heads, [&](std::int64_t task) {
    const auto memory =
        std::make_unique_for_overwrite<float[]>(attention_scratch(args, task));
    f(task, memory.get());
  });
}

}  // namespace fettle::kernels::cpu
