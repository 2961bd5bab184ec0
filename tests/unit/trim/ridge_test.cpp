// SPDX-License-Identifier: Apache-2.0
#include "trim/ridge.h"

#include <ATen/CPUGeneratorImpl.h>

#include <catch2/catch.hpp>

namespace fettle::trim {
namespace {

at::Tensor random_matrix(
    std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn({rows, columns}, generator, at::kDouble);
}

// Of activations h [n, I] of tokens with mixing weights p [n].
Moments moments_of(const at::Tensor& h, const at::Tensor& p) {
  const at::Tensor weighted = h * p.unsqueeze(1);
  return {
      at::mm(weighted.t(), weighted),
      at::mv(weighted.t(), p),
      p.square().sum().item<double>()};
}

at::Tensor columns(const at::Tensor& tensor, std::vector<std::int64_t> index) {
  return tensor.index_select(1, at::tensor(index, at::kLong));
}

TEST_CASE("A neuron that is a combination of others goes without loss") {
  const at::Tensor w = random_matrix(5, 4, 1);
  at::Tensor h = random_matrix(40, 4, 2);
  h.select(1, 2).copy_(2 * h.select(1, 0) - 3 * h.select(1, 3));
  const at::Tensor p = random_matrix(40, 1, 3).abs().view({-1});
  const Refit refit = refit_down(w, moments_of(h, p), {0, 1, 3}, {1e-9, false});
  // Its weights are those of 0 and 3 from now on.
  at::Tensor expected = columns(w, {0, 1, 3});
  expected.select(1, 0).add_(2 * w.select(1, 2));
  expected.select(1, 2).add_(-3 * w.select(1, 2));
  REQUIRE(at::allclose(refit.down, expected, 1e-7, 1e-8));
  REQUIRE(refit.error_before > 1);
  REQUIRE(std::abs(refit.error_after) < 1e-6);
  REQUIRE(!refit.constant.defined());
}

TEST_CASE("Neurons that have nothing in common with what is cut stay") {
  // Every neuron is active on tokens of its own.
  const at::Tensor h = at::eye(4, at::kDouble);
  const at::Tensor w = random_matrix(3, 4, 1);
  const Refit refit = refit_down(
      w, moments_of(h, at::ones({4}, at::kDouble)), {1, 2}, {0.1, false});
  REQUIRE(refit.down.equal(columns(w, {1, 2})));
  const double lost = columns(w, {0, 3}).square().sum().item<double>();
  REQUIRE(refit.error_before == Approx(lost));
  REQUIRE(refit.error_after == Approx(lost));
}

TEST_CASE("The fit is the minimum of its objective") {
  const bool constant = GENERATE(false, true);
  const double lambda = GENERATE(0.5, 20.0);
  const at::Tensor w = random_matrix(3, 6, 1);
  const at::Tensor h = random_matrix(30, 6, 2) + 1;
  const at::Tensor p = random_matrix(30, 1, 3).abs().view({-1});
  const std::vector<std::int64_t> kept{0, 2, 5};
  const Refit refit = refit_down(w, moments_of(h, p), kept, {lambda, constant});
  const at::Tensor target = at::mm(h, w.t());
  const at::Tensor inputs = columns(h, kept);
  const auto error = [&](const at::Tensor& down, const at::Tensor& c) {
    at::Tensor difference = target - at::mm(inputs, down.t());
    if (c.defined()) difference = difference - c;
    return (difference * p.unsqueeze(1)).square().sum().item<double>();
  };
  const auto objective = [&](const at::Tensor& down, const at::Tensor& c) {
    return error(down, c) +
           lambda * (down - columns(w, kept)).square().sum().item<double>();
  };
  REQUIRE(refit.error_after == Approx(error(refit.down, refit.constant)));
  REQUIRE(refit.error_before == Approx(error(columns(w, kept), {})));
  const double best = objective(refit.down, refit.constant);
  for (std::uint64_t seed = 10; seed < 20; ++seed) {
    const at::Tensor step = 1e-3 * random_matrix(3, 3, seed);
    REQUIRE(objective(refit.down + step, refit.constant) > best);
    if (!constant) continue;
    const at::Tensor move = 1e-3 * random_matrix(3, 1, seed).view({-1});
    REQUIRE(objective(refit.down, refit.constant + move) > best);
  }
}

TEST_CASE("Moments without full rank are no obstacle") {
  // Two tokens for six neurons, and no lambda at all.
  const at::Tensor w = random_matrix(3, 6, 1);
  const at::Tensor h = random_matrix(2, 6, 2);
  const at::Tensor p = at::ones({2}, at::kDouble);
  const std::vector<std::int64_t> kept{0, 1, 2, 4};
  const Refit refit = refit_down(w, moments_of(h, p), kept, {0, false});
  // Four kept neurons can give back the outputs of two tokens.
  const at::Tensor out = at::mm(columns(h, kept), refit.down.t());
  REQUIRE(at::allclose(out, at::mm(h, w.t()), 1e-4, 1e-4));
}

TEST_CASE("Without activations weights stay as they were") {
  const at::Tensor w = random_matrix(3, 4, 1);
  const Moments none{at::zeros({4, 4}), at::zeros({4}, at::kDouble), 0};
  const bool constant = GENERATE(false, true);
  const double lambda = GENERATE(0.0, 1.0);
  const Refit refit = refit_down(w, none, {1, 3}, {lambda, constant});
  REQUIRE(refit.down.equal(columns(w, {1, 3})));
  REQUIRE(refit.constant.defined() == constant);
  if (constant) REQUIRE(refit.constant.eq(0).all().item<bool>());
}

TEST_CASE("An expert without neurons keeps its mean output") {
  const at::Tensor w = random_matrix(3, 4, 1);
  const at::Tensor h = random_matrix(9, 4, 2);
  const at::Tensor p = at::ones({9}, at::kDouble);
  const Refit refit = refit_down(w, moments_of(h, p), {}, {1, true});
  REQUIRE(refit.down.sizes() == at::IntArrayRef({3, 0}));
  REQUIRE(at::allclose(refit.constant, at::mv(w, h.mean(0))));
  const at::Tensor left = at::mm(h - h.mean(0), w.t());
  REQUIRE(refit.error_after == Approx(left.square().sum().item<double>()));
}

}  // namespace
}  // namespace fettle::trim
