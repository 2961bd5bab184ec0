// SPDX-License-Identifier: Apache-2.0
#include "analyze/elimination.h"

#include <catch2/catch.hpp>
#include <limits>

#include <ATen/CPUGeneratorImpl.h>

namespace fettle::analyze {
namespace {

at::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::kDouble);
}

at::Tensor index_of(const std::vector<std::int64_t>& values) {
  return at::tensor(values, at::kLong);
}

// What removing `gone` costs in all, the rest fitted anew from scratch:
// 1/2 tr(W_P^T (M_PP - M_PS M_SS^-1 M_SP) W_P G).
double cost_of(
    const at::Tensor& moment,
    const at::Tensor& w,
    const at::Tensor& g,
    const std::vector<std::int64_t>& gone) {
  std::vector<std::int64_t> kept;
  for (std::int64_t k = 0; k < moment.size(0); ++k) {
    if (std::ranges::find(gone, k) == gone.end()) kept.push_back(k);
  }
  const at::Tensor p = index_of(gone);
  const at::Tensor s = index_of(kept);
  const auto part = [&](const at::Tensor& rows, const at::Tensor& columns) {
    return moment.index_select(0, rows).index_select(1, columns);
  };
  // The rows that stay move by this; removed rows move by -W.
  at::Tensor change = at::zeros_like(w);
  change.index_copy_(0, p, -w.index_select(0, p));
  if (!kept.empty()) {
    const at::Tensor fit =
        at::linalg_solve(part(s, s), at::mm(part(s, p), w.index_select(0, p)));
    change.index_copy_(0, s, fit);
  }
  const at::Tensor loss = at::mm(at::mm(change.t(), at::mm(moment, change)), g);
  return 0.5 * loss.trace().item<double>();
}

// Every candidate of every step from scratch.
Elimination eliminate_directly(
    const at::Tensor& moment, const at::Tensor& w, const at::Tensor& g) {
  Elimination result;
  std::vector<std::int64_t> gone;
  double paid = 0;
  for (std::int64_t step = 0; step < moment.size(0); ++step) {
    double best = std::numeric_limits<double>::infinity();
    std::int64_t chosen = -1;
    for (std::int64_t k = 0; k < moment.size(0); ++k) {
      if (std::ranges::find(gone, k) != gone.end()) continue;
      gone.push_back(k);
      const double cost = cost_of(moment, w, g, gone);
      gone.pop_back();
      if (cost < best) {
        best = cost;
        chosen = k;
      }
    }
    gone.push_back(chosen);
    result.order.push_back(chosen);
    result.costs.push_back(best - paid);
    paid = best;
  }
  return result;
}

TEST_CASE("Independent neurons go in the order of their energy") {
  // Moments 4, 1, 9; output norms 1, 3, 1 in a metric of 2.
  const at::Tensor moment = at::diag(at::tensor({4.0, 1.0, 9.0}, at::kDouble));
  const at::Tensor gram = at::diag(at::tensor({2.0, 18.0, 2.0}, at::kDouble));
  const Elimination found = eliminate(at::inverse(moment), gram);
  REQUIRE(found.order == std::vector<std::int64_t>{0, 1, 2});
  REQUIRE(found.costs[0] == Approx(4));
  REQUIRE(found.costs[1] == Approx(9));
  REQUIRE(found.costs[2] == Approx(9));
}

TEST_CASE("A neuron that another can stand in for goes first and for free") {
  // Neurons 0 and 1 always fire alike; 2 fires by itself, and weakly.
  at::Tensor a = at::zeros({4, 3}, at::kDouble);
  a.select(1, 0).copy_(at::tensor({1.0, 2.0, 0.0, 0.0}, at::kDouble));
  a.select(1, 1).copy_(a.select(1, 0));
  a.select(1, 2).copy_(at::tensor({0.0, 0.0, 0.5, 0.0}, at::kDouble));
  const at::Tensor inverse = damped_inverse(at::mm(a.t(), a), 1e-9);
  const Elimination found = eliminate(inverse, at::eye(3, at::kDouble));
  REQUIRE(found.order.front() != 2);
  REQUIRE(found.costs[0] < 1e-8);
  REQUIRE(found.order[1] == 2);
  REQUIRE(found.costs[1] == Approx(0.5 * 0.25));
  // The one that is left has taken the other's output over: energy 5, norm 2.
  REQUIRE(found.costs[2] == Approx(5));
}

TEST_CASE("Elimination is what refitting from scratch finds") {
  // 40 neurons are more than a block of steps.
  const std::int64_t neurons = GENERATE(1, 7, 40);
  const at::Tensor a = random({60, neurons}, 1);
  const at::Tensor w = random({neurons, 5}, 2);
  const at::Tensor d = random({9, 5}, 3);
  const at::Tensor g = at::mm(d.t(), d) / 9;
  const double damping = 0.3;
  const at::Tensor moment =
      at::mm(a.t(), a) + damping * at::eye(neurons, at::kDouble);
  const Elimination expected = eliminate_directly(moment, w, g);
  const Elimination found = eliminate(
      damped_inverse(at::mm(a.t(), a), damping), at::mm(at::mm(w, g), w.t()));
  REQUIRE(found.order == expected.order);
  for (std::size_t i = 0; i < found.costs.size(); ++i) {
    // Differences of totals, in fp64.
    REQUIRE(found.costs[i] == Approx(expected.costs[i]).epsilon(1e-8));
  }
}

TEST_CASE("Scores grow strictly along the order") {
  const Elimination elimination{{2, 0, 3, 1}, {0.0, 0.0, 5.0, 4.0}};
  const at::Tensor scores = elimination_scores(elimination).to(at::kFloat);
  const float* s = scores.const_data_ptr<float>();
  REQUIRE(s[2] > 0);
  REQUIRE(s[0] > s[2]);
  REQUIRE(s[0] < 1e-30f);
  REQUIRE(s[3] == 5);
  REQUIRE(s[1] > 5);
  REQUIRE(s[1] == Approx(5));
}

TEST_CASE("Damping grows until a matrix can be inverted") {
  // Indefinite by more than the damping asked for.
  const at::Tensor moment = at::diag(at::tensor({1.0, -0.05}, at::kDouble));
  const at::Tensor inverse = damped_inverse(moment, 1e-3);
  REQUIRE(inverse[0][0].item<double>() == Approx(1 / 1.1));
  REQUIRE(inverse[1][1].item<double>() == Approx(1 / 0.05));
}

}  // namespace
}  // namespace fettle::analyze
