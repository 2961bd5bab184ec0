// SPDX-License-Identifier: Apache-2.0
#include "tune/part/adamw.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

using namespace fettle::tune;

TEST_CASE("the first update moves every weight by the rate") {
  // m / sqrt(v) is the gradient's sign once both are corrected.
  at::Tensor values = at::zeros({3, 2, 2});
  const at::Tensor gradient = at::tensor({4.0f, -0.5f, 0.01f, -300.0f})
                                  .view({1, 2, 2})
                                  .repeat({3, 1, 1});
  AdamWState state = AdamWState::zeros_like(values);
  adamw_step({.epsilon = 1e-12}, 0.25, gradient, values, state);
  CHECK(at::allclose(values, gradient.sign() * -0.25, 1e-6));
  CHECK(state.age.equal(at::ones({2}, at::kLong)));
}

TEST_CASE("decay is decoupled from the gradient") {
  at::Tensor values = at::full({1, 2, 2}, 8.0);
  AdamWState state = AdamWState::zeros_like(values);
  adamw_step({.weight_decay = 0.5}, 0.25, at::zeros({1, 2, 2}), values, state);
  CHECK(values.equal(at::full({1, 2, 2}, 7.0)));
}

namespace {

// One weight in double precision, as the paper writes it.
double by_hand(const std::vector<double>& gradients, const AdamWOptions& o) {
  double w = 1.0, m = 0.0, v = 0.0;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const double g = gradients[i];
    const auto t = static_cast<double>(i + 1);
    w -= 0.1 * o.weight_decay * w;
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    w -= 0.1 * (m / (1 - std::pow(o.beta1, t))) /
         (std::sqrt(v / (1 - std::pow(o.beta2, t))) + o.epsilon);
  }
  return w;
}

}  // namespace

TEST_CASE("updates follow the paper, and a row's age is its own") {
  const AdamWOptions options{0.8, 0.95, 1e-3, 0.2};
  const std::vector<double> all{0.5, -1.5, 0.1, 2.0, 0.0, -0.7};
  const std::vector<double> last(all.begin() + 2, all.end());
  at::Tensor values = at::ones({1, 2, 1});
  AdamWState state = AdamWState::zeros_like(values);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i == 2) {  // row 1 joins here
      values.select(1, 1).fill_(1.0);
      state.first.select(1, 1).zero_();
      state.second.select(1, 1).zero_();
      state.age[1] = 0;
    }
    adamw_step(options, 0.1, at::full({1, 2, 1}, all[i]), values, state);
  }
  // fp32 against double over six updates.
  CHECK(
      values[0][0][0].item<double>() ==
      Approx(by_hand(all, options)).epsilon(1e-5));
  CHECK(
      values[0][1][0].item<double>() ==
      Approx(by_hand(last, options)).epsilon(1e-5));
}
