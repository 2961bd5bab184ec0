// SPDX-License-Identifier: Apache-2.0
// Which experts a layer computes together. On the CPU each is alone, for its
// threads take an expert each. On a card neighbours of one width go together:
// an expert's rows alone fill little of it, and a launch costs as much as their
// work.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/layers/expert_dispatch.h"

namespace fettle::model {

// Experts [first, end) of one width, and their rows in the dispatch.
struct ExpertRun {
  std::int64_t first, end;
  std::int64_t row, rows;

  std::int64_t experts() const { return end - first; }
};

// Every expert with rows is in a run; an expert without rows may be inside one.
// offsets: [E + 1], of the experts' neurons in their bank.
std::vector<ExpertRun> expert_runs(
    const Dispatch& dispatch,
    const std::vector<std::int64_t>& offsets,
    bool together);

// The run's rows of a tensor of all rows.
at::Tensor rows_of(const ExpertRun& run, const at::Tensor& all);

// Calls job(e, rows) for the run's experts that have rows; rows(x) are those of
// a tensor of the run's rows.
template <class Job>
void for_each_expert_of(const ExpertRun& run, const Dispatch& all, Job job) {
  for (std::int64_t e = run.first; e < run.end; ++e) {
    const std::int64_t count = all.count(e);
    if (count == 0) continue;
    job(e, [row = all.starts[e] - run.row, count](const at::Tensor& x) {
      return x.narrow(0, row, count);
    });
  }
}

// Calls job(e) for every expert that has rows, on the CPU, largest first.
// Exceptions are passed on.
void for_each_expert(
    const Dispatch& dispatch, const std::function<void(std::int64_t)>& job);

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

// [experts, n, m]: a_eᵀ b_e of the rows of every expert e of the run, 0 where
// it has none. a [rows, n], b [rows, m].
at::Tensor run_outer_products(
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& a,
    const at::Tensor& b);

}  // namespace fettle::model
