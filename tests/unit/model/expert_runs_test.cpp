// SPDX-License-Identifier: Apache-2.0
#include "model/layers/expert_runs.h"

#include <catch2/catch.hpp>

namespace fettle::model {
namespace {

using Runs = std::vector<std::vector<std::int64_t>>;

// Each run's experts and number of rows.
Runs runs_of(
    const std::vector<std::int64_t>& counts,
    const std::vector<std::int64_t>& widths,
    bool together) {
  std::vector<std::int64_t> chosen;
  std::vector<std::int64_t> offsets{0};
  for (std::size_t e = 0; e < counts.size(); ++e) {
    chosen.insert(chosen.end(), counts[e], static_cast<std::int64_t>(e));
    offsets.push_back(offsets.back() + widths[e]);
  }
  const Dispatch all =
      dispatch(at::tensor(chosen, at::kLong).unsqueeze(1), std::ssize(counts));
  Runs result;
  for (const ExpertRun& run : expert_runs(all, offsets, together)) {
    CHECK(run.row == all.starts[run.first]);
    result.push_back({run.first, run.end, run.rows});
  }
  return result;
}

TEST_CASE("experts are alone where none go together") {
  CHECK(
      runs_of({3, 0, 2, 1}, {4, 4, 4, 4}, false) ==
      Runs{{0, 1, 3}, {2, 3, 2}, {3, 4, 1}});
}

TEST_CASE("neighbours of one width go together") {
  CHECK(runs_of({3, 0, 2, 1, 4}, {4, 4, 4, 4, 4}, true) == Runs{{0, 5, 10}});
}

TEST_CASE("experts of another width, or of none, are apart") {
  CHECK(
      runs_of({1, 1, 1, 1, 1}, {4, 4, 8, 0, 0}, true) ==
      Runs{{0, 2, 2}, {2, 3, 1}, {3, 4, 1}, {4, 5, 1}});
  // No rows before the first, none after the last.
  CHECK(runs_of({0, 1, 0}, {4, 4, 4}, true) == Runs{{1, 3, 1}});
  CHECK(runs_of({0, 0}, {4, 4}, true).empty());
}

TEST_CASE("products of a run are those of its experts") {
  const at::Tensor bank = at::randn({3, 4, 5}), x = at::randn({6, 4});
  const Dispatch all =
      dispatch(at::tensor({0, 0, 0, 2, 2, 2}, at::kLong).unsqueeze(1), 3);
  const auto runs = expert_runs(all, {0, 1, 2, 3}, true);
  REQUIRE(runs.size() == 1);
  const at::Tensor y = run_products(runs[0], all, x, bank);
  at::Tensor into = at::full({6, 5}, -1.0), made;
  run_products_into(into, runs[0], all, x, bank);
  run_products_into(made, runs[0], all, x, bank);
  CHECK((into.equal(y) && made.equal(y)));
  CHECK(at::allclose(y.narrow(0, 0, 3), at::mm(x.narrow(0, 0, 3), bank[0])));
  CHECK(at::allclose(y.narrow(0, 3, 3), at::mm(x.narrow(0, 3, 3), bank[2])));
}

}  // namespace
}  // namespace fettle::model
