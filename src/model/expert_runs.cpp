// SPDX-License-Identifier: Apache-2.0
#include "model/expert_runs.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "kernels/device_backend.h"
#include "model/expert_loop.h"

namespace fettle::model {
namespace {

// Where libtorch has one kernel for the products of all experts; elsewhere it
// would have the host wait for the rows' numbers, which are known here.
bool has_grouped_products(
    const ExpertRun& run, const at::Tensor& x, const at::Tensor& bank) {
  if (run.experts() == 1 || x.is_cpu()) return false;
  if (x.scalar_type() != at::kBFloat16) return false;
  const int capability = kernels::compute_capability(x.device());
  if (capability != 90 && capability != 100) return false;
  constexpr std::int64_t aligned = 8;  // 16 bytes
  return bank.size(1) % aligned == 0 && bank.size(2) % aligned == 0 &&
         bank.storage_offset() % aligned == 0;
}

at::Tensor grouped_products(
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank) {
  const at::Tensor ends =
      dispatch.ends.narrow(0, run.first, run.experts()).sub(run.row);
  return at::_grouped_mm(x, bank, ends);
}

void products_one_by_one(
    at::Tensor& out,
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank) {
  for (std::int64_t e = run.first; e < run.end; ++e) {
    const std::int64_t rows = dispatch.count(e);
    if (rows == 0) continue;
    const std::int64_t row = dispatch.starts[e] - run.row;
    at::Tensor y = out.narrow(0, row, rows);
    at::mm_out(y, x.narrow(0, row, rows), bank[e - run.first]);
  }
}

}  // namespace

std::vector<ExpertRun> expert_runs(
    const Dispatch& dispatch,
    const std::vector<std::int64_t>& offsets,
    bool together) {
  const auto width = [&](std::int64_t e) {
    return offsets[e + 1] - offsets[e];
  };
  std::vector<ExpertRun> runs;
  for (std::int64_t e = 0; e + 1 < std::ssize(offsets); ++e) {
    const std::int64_t rows = dispatch.count(e);
    if (together && !runs.empty() && runs.back().end == e && width(e) > 0 &&
        width(e) == width(runs.back().first)) {
      runs.back().end = e + 1;
      runs.back().rows += rows;
      continue;
    }
    if (rows > 0) runs.push_back({e, e + 1, dispatch.starts[e], rows});
  }
  return runs;
}

at::Tensor rows_of(const ExpertRun& run, const at::Tensor& all) {
  return all.narrow(0, run.row, run.rows);
}

void for_each_run(
    const std::vector<ExpertRun>& runs,
    bool on_cpu,
    const std::function<void(std::size_t)>& job) {
  std::vector<std::int64_t> order(runs.size());
  std::iota(order.begin(), order.end(), 0);
  // Largest first, so that no thread is left alone with a large one at the end.
  std::ranges::stable_sort(order, std::greater(), [&](std::int64_t i) {
    return runs[static_cast<std::size_t>(i)].rows;
  });
  run_side_by_side(
      order, on_cpu, [&](std::int64_t i) { job(static_cast<std::size_t>(i)); });
}

at::Tensor run_products(
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank) {
  if (has_grouped_products(run, x, bank)) {
    return grouped_products(run, dispatch, x, bank);
  }
  at::Tensor out = at::empty({x.size(0), bank.size(2)}, x.options());
  products_one_by_one(out, run, dispatch, x, bank);
  return out;
}

void run_products_into(
    at::Tensor& all,
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank) {
  if (!all.defined()) {
    FETTLE_ASSERT(run.rows == dispatch.token.size(0));
    all = run_products(run, dispatch, x, bank);
    return;
  }
  at::Tensor out = rows_of(run, all);
  if (has_grouped_products(run, x, bank)) {
    out.copy_(grouped_products(run, dispatch, x, bank));
  } else {
    products_one_by_one(out, run, dispatch, x, bank);
  }
}

}  // namespace fettle::model
