// SPDX-License-Identifier: Apache-2.0
#include "model/layers/expert_runs.h"

#include <numeric>

#include "core/error.h"
#include "kernels/device_backend.h"
#include "model/layers/decoded_product.h"
#include "model/weights/side_by_side.h"

namespace fettle::model {
namespace {

// Where libtorch has one kernel for the products of all experts; elsewhere it
// would have the host wait for the rows' numbers, which are known here.
bool grouped_serves(
    const ExpertRun& run, const at::Tensor& a, const at::Tensor& b) {
  constexpr std::int64_t most = 1023;  // libtorch's
  if (run.experts() == 1 || run.experts() > most || a.is_cpu()) return false;
  if (a.scalar_type() != at::kBFloat16) return false;
  const int capability = kernels::compute_capability(a.device());
  if (capability != 90 && capability != 100) return false;
  // It reads sixteen bytes at a time.
  const auto aligned = [](const at::Tensor& t) {
    const auto address = reinterpret_cast<std::uintptr_t>(t.const_data_ptr());
    return address % 16 == 0 && t.size(-1) % 8 == 0;
  };
  return aligned(a) && aligned(b) && b.size(1) % 8 == 0;
}

// Where each expert's rows end among the run's: [experts] int32.
at::Tensor ends_of(const ExpertRun& run, const Dispatch& dispatch) {
  return dispatch.ends.narrow(0, run.first, run.experts()).sub(run.row);
}

void products_one_by_one(
    at::Tensor& out,
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank) {
  for_each_expert_of(run, dispatch, [&](std::int64_t e, const auto& rows) {
    at::Tensor y = rows(out);
    product_into(y, rows(x), bank[e - run.first], {dispatch.decodes});
  });
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

void for_each_expert(
    const Dispatch& dispatch, const std::function<void(std::int64_t)>& job) {
  std::vector<std::int64_t> order;
  for (std::int64_t e = 0; e + 1 < std::ssize(dispatch.starts); ++e) {
    if (dispatch.count(e) > 0) order.push_back(e);
  }
  run_largest_first(
      std::move(order),
      [&](std::int64_t e) { return dispatch.count(e); },
      /*on_cpu=*/true,
      job);
}

void for_each_run(
    const std::vector<ExpertRun>& runs,
    bool on_cpu,
    const std::function<void(std::size_t)>& job) {
  std::vector<std::int64_t> order(runs.size());
  std::iota(order.begin(), order.end(), 0);
  run_largest_first(
      std::move(order),
      [&](std::int64_t i) { return runs[static_cast<std::size_t>(i)].rows; },
      on_cpu,
      [&](std::int64_t i) { job(static_cast<std::size_t>(i)); });
}

at::Tensor run_products(
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& x,
    const at::Tensor& bank) {
  if (grouped_serves(run, x, bank)) {
    return at::_grouped_mm(x, bank, ends_of(run, dispatch));
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
  if (grouped_serves(run, x, bank)) {
    out.copy_(at::_grouped_mm(x, bank, ends_of(run, dispatch)));
  } else {
    products_one_by_one(out, run, dispatch, x, bank);
  }
}

at::Tensor run_outer_products(
    const ExpertRun& run,
    const Dispatch& dispatch,
    const at::Tensor& a,
    const at::Tensor& b) {
  at::Tensor out;
  if (grouped_serves(run, a, b)) {
    out = at::_grouped_mm(a.t(), b, ends_of(run, dispatch));
  } else {
    out = at::empty({run.experts(), a.size(1), b.size(1)}, a.options());
    for_each_expert_of(run, dispatch, [&](std::int64_t e, const auto& rows) {
      at::Tensor product = out[e - run.first];
      at::mm_out(product, rows(a).t(), rows(b));
    });
  }
  for (std::int64_t e = run.first; e < run.end; ++e) {
    if (dispatch.count(e) == 0) out[e - run.first].zero_();
  }
  return out;
}

}  // namespace fettle::model
