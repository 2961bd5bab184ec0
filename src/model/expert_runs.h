// SPDX-License-Identifier: Apache-2.0
// Which experts a layer computes together. On the CPU each is alone, for its
// threads take an expert each. On a card neighbours of one width go together:
// an expert's rows alone fill little of it, and a launch costs as much as their
// work.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/dispatch.h"

namespace fettle::model {

// Experts [first, end) of one width, and their rows in the dispatch.
struct ExpertRun {
  std::int64_t first, end;
  std::int64_t row, rows;

  std::int64_t experts() const { return end - first; }
};

// All experts that have rows, and some that have none. offsets: [E + 1], of the
// experts' neurons in their bank.
std::vector<ExpertRun> expert_runs(
    const Dispatch& dispatch,
    const std::vector<std::int64_t>& offsets,
    bool together);

// The run's rows of a tensor of all rows.
at::Tensor rows_of(const ExpertRun& run, const at::Tensor& all);

// Calls job(i) for every run, as run_side_by_side does, largest first.
void for_each_run(
    const std::vector<ExpertRun>& runs,
    bool on_cpu,
    const std::function<void(std::size_t)>& job);

// [rows, out]: x[r] W_e for the rows r of every expert e of the run. x [rows,
// in], bank [experts, in, out].
at::Tensor run_products(
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank);

// The same into the run's rows of `all` [M, out]; makes it where it isn't yet,
// of a run that has all rows.
void run_products_into(
    at::Tensor& all,
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank);

}  // namespace fettle::model
