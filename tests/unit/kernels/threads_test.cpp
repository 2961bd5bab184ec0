// SPDX-License-Identifier: Apache-2.0
// Every op gives the same bits on any number of threads. Sizes are above what
// an op keeps on one thread, and no multiple of the numbers of threads.
#include <catch2/catch.hpp>

#include "device_case.h"
#include "kernels/cross_entropy.h"
#include "kernels/expert_rows.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace fettle::kernels {
namespace {

using namespace test;

// Every result of every op.
std::vector<at::Tensor> run_all(const DeviceCase& where) {
  const auto make = [&](at::IntArrayRef sizes, std::int64_t seed) {
    return on(where, values(sizes, seed, where));
  };
  std::vector<at::Tensor> all;
  const at::Tensor x = make({301, 515}, 1), w = make({515}, 2);
  const auto norm = rms_norm(x, w, 1e-6);
  const auto norm_back = rms_norm_backward(
      make({301, 515}, 3), x, w, norm.rstd, {.weight_gradient = true});
  all.insert(all.end(), {norm.y, norm.rstd, norm_back.dx, norm_back.dw});

  const at::Tensor gate_up = make({201, 514}, 4);
  all.push_back(swiglu(gate_up));
  all.push_back(swiglu_backward(make({201, 257}, 5), gate_up));

  const at::Tensor index = (at::arange(602, at::kLong) * 101).remainder(602);
  const at::Tensor position = index.reshape({301, 2});
  const at::Tensor rows = gather_rows(x, index.remainder(301));
  const at::Tensor weights = make({301, 2}, 6).to(at::kFloat);
  const auto back = combine_backward(x, rows, position, weights);
  all.insert(
      all.end(),
      {rows,
       combine(rows, position, weights),
       gather_rows_backward(rows, position),
       back.d_rows,
       back.d_weights});

  at::Tensor logits = make({37, 5003}, 7);
  all.push_back(
      cross_entropy_with_gradient_(logits, at::arange(37, at::kLong), 0.1));
  all.push_back(logits);

  const at::Tensor heads = make({101, 7, 96}, 8);
  const at::Tensor angles = make({101, 48}, 9).to(at::kFloat);
  all.push_back(rope(heads, angles.cos(), angles.sin()));
  return all;
}

}  // namespace

TEST_CASE("results have the same bits on any number of threads") {
  const int before = at::get_num_threads();
  for (const auto& where : cpu_cases()) {
    at::set_num_threads(1);
    const auto alone = run_all(where);
    for (const int threads : {2, 3, 5}) {
      at::set_num_threads(threads);
      const auto together = run_all(where);
      REQUIRE(together.size() == alone.size());
      for (std::size_t i = 0; i < alone.size(); ++i) {
        CAPTURE(where.name, threads, i);
        CHECK(same_bits(together[i], alone[i]));
      }
    }
  }
  at::set_num_threads(before);
}

}  // namespace fettle::kernels
