// SPDX-License-Identifier: Apache-2.0
// Routing with a bias and with condensers, by hand: the router's matrix is the
// identity, so that x holds the logits.
#include "model/layers/router.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>

using namespace fettle;
using namespace fettle::model;

namespace {

using Experts = std::vector<std::int64_t>;

struct Case {
  RouterConfig config;
  std::int64_t top_k = 2;
  std::vector<double> logits;
  Experts condensers = {};
  std::vector<double> bias = {};
  std::vector<double> correction = {};
};

at::Tensor fp32(const std::vector<double>& values) {
  return values.empty() ? at::Tensor() : at::tensor(values, at::kFloat);
}

Routing run(const Case& c) {
  const auto experts = static_cast<std::int64_t>(c.logits.size());
  return route(
      c.config,
      c.top_k,
      fp32(c.logits).unsqueeze(0),
      {at::eye(experts), fp32(c.correction), fp32(c.bias), c.condensers});
}

// Logits whose softmax is `probs`, which add up to 1.
std::vector<double> logits_of(std::vector<double> probs) {
  for (double& p : probs) p = std::log(p);
  return probs;
}

void check(
    const Case& c,
    const Experts& selected,
    const std::vector<double>& weights) {
  const Routing routing = run(c);
  CHECK(routing.selected.equal(at::tensor(selected).unsqueeze(0)));
  // Rounding of a softmax in fp32.
  CHECK(at::allclose(routing.weights, fp32(weights).unsqueeze(0), 1e-6, 1e-7));
}

const std::vector<double> kFour = logits_of({0.5, 0.25, 0.15, 0.1});

}  // namespace

TEST_CASE("condensers count among the chosen and the router picks the rest") {
  RouterConfig plain;
  RouterConfig normed;
  normed.renormalize = true;
  RouterConfig late;
  late.score = RouterScore::kTopkThenSoftmax;
  check({plain, 2, kFour}, {0, 1}, {0.5, 0.25});
  check({plain, 2, kFour, {3}}, {3, 0}, {0.1, 0.5});
  check({normed, 2, kFour, {3}}, {3, 0}, {1.0 / 6, 5.0 / 6});
  check({late, 2, kFour, {3}}, {3, 0}, {1.0 / 6, 5.0 / 6});
  // One that the router would have chosen is counted once.
  check({plain, 2, kFour, {0}}, {0, 1}, {0.5, 0.25});
  check({plain, 3, kFour, {0, 2}}, {0, 2, 1}, {0.5, 0.15, 0.25});
  // No choice is left.
  check({plain, 2, kFour, {1, 3}}, {1, 3}, {0.25, 0.1});
  plain.scale = 3.0;
  check({plain, 1, kFour, {2}}, {2}, {0.45});
}

TEST_CASE("a bias enters the choice and the mixing weights") {
  RouterConfig config;
  // p e^b = .5, .25, .6, .1 over 1.45.
  const std::vector<double> bias{0, 0, std::log(4.0), 0};
  const Case c{config, 2, kFour, {}, bias};
  check(c, {2, 0}, {0.6 / 1.45, 0.5 / 1.45});
  const Routing routing = run(c);
  CHECK(routing.logits.allclose(fp32(kFour) + fp32(bias)));
  CHECK(routing.probs[0][3].item<double>() == Approx(0.1 / 1.45));
  check({config, 2, kFour, {3}, bias}, {3, 2}, {0.1 / 1.45, 0.6 / 1.45});
  config.score = RouterScore::kTopkThenSoftmax;
  check({config, 2, kFour, {}, bias}, {2, 0}, {6.0 / 11, 5.0 / 11});
}

TEST_CASE("sigmoid scores: the correction chooses, the bias weighs too") {
  RouterConfig config;
  config.score = RouterScore::kSigmoid;
  const double three = std::log(3.0);
  // Scores .5, .75, .25, .5.
  const std::vector<double> logits{0, three, -three, 0};
  const std::vector<double> correction{0, 0, 0, 0.1};
  check({config, 2, logits, {}, {}, correction}, {1, 3}, {0.75, 0.5});
  check({config, 2, logits, {2}, {}, correction}, {2, 1}, {0.25, 0.75});
  check(
      {config, 2, logits, {2}, {three, -three, 0, 0}, correction},
      {2, 0},
      {0.25, 0.75});
  config.renormalize = true;
  check({config, 2, logits, {2}}, {2, 1}, {0.25, 0.75});
}

TEST_CASE("condensers stand outside the limits of groups") {
  RouterConfig config;
  config.groups = 3;
  config.topk_groups = 1;
  const auto logits = logits_of({0.4, 0.02, 0.1, 0.2, 0.15, 0.13});
  check({config, 2, logits}, {0, 1}, {0.4, 0.02});
  check({config, 2, logits, {0}}, {0, 3}, {0.4, 0.2});
  check({config, 3, logits, {0}}, {0, 3, 2}, {0.4, 0.2, 0.1});
  check({config, 2, logits, {3}}, {3, 0}, {0.2, 0.4});
  config.group_score = GroupScore::kTopTwoSum;
  // Pairs without the condenser: .02, .3, .28; then .4 + .02, .1, .28.
  check({config, 2, logits, {0}}, {0, 3}, {0.4, 0.2});
  check({config, 2, logits, {2}}, {2, 0}, {0.1, 0.4});
}

TEST_CASE("experts outside the groups rank below any score") {
  RouterConfig config;
  config.score = RouterScore::kSigmoid;
  config.groups = 2;
  config.topk_groups = 1;
  config.group_score = GroupScore::kTopTwoSum;
  // Scores of .5; with the correction .4, -.1, .2, -.5: the first group wins.
  const std::vector<double> logits{0, 0, 0, 0};
  const std::vector<double> correction{-0.1, -0.6, -0.3, -1.0};
  const Case zero{config, 2, logits, {}, {}, correction};
  CHECK(run(zero).selected[0][1].item<std::int64_t>() != 1);
  config.outside_groups = OutsideGroups::kMinusInfinity;
  check({config, 2, logits, {}, {}, correction}, {0, 1}, {0.5, 0.5});
  // A condenser counts as little as they do: the second group is left.
  check({config, 3, logits, {0}, {}, correction}, {0, 2, 3}, {.5, .5, .5});
}

TEST_CASE("renormalised weights are divided by more than their sum") {
  RouterConfig config;
  config.score = RouterScore::kSigmoid;
  config.renormalize = true;
  config.added_sum = 0.25;
  check({config, 2, {0, 0, -90}}, {0, 1}, {0.4, 0.4});
  // Scores that are 0 in fp32 stay 0.
  config.added_sum = 1e-20;
  check({config, 1, {-200, -300}}, {0}, {0.0});
  config.added_sum = 0.0;
  config.least_sum = 2.0;
  check({config, 2, {0, 0, -90}}, {0, 1}, {0.25, 0.25});
  config.least_sum = 0.5;
  check({config, 2, {0, 0, -90}}, {0, 1}, {0.5, 0.5});
}

TEST_CASE("a bias of zeros and no condensers give the same bits") {
  const at::Tensor x = at::randn({40, 12});
  const at::Tensor weight = at::randn({16, 12});
  for (const auto score :
       {RouterScore::kSoftmaxThenTopk,
        RouterScore::kTopkThenSoftmax,
        RouterScore::kSigmoid}) {
    RouterConfig config;
    config.score = score;
    config.groups = 4;
    config.topk_groups = 2;
    const at::Tensor none;
    const at::Tensor zeros = at::zeros({16});
    const Routing a = route(config, 4, x, {weight, none, none, {}});
    const Routing b = route(config, 4, x, {weight, zeros, zeros, {}});
    CHECK(a.selected.equal(b.selected));
    CHECK(a.weights.equal(b.weights));
    CHECK(a.probs.equal(b.probs));
  }
}

TEST_CASE("a condenser's mixing weight has a gradient, its choice has none") {
  const at::AutoGradMode grad(true);
  const at::Tensor x = fp32(kFour).unsqueeze(0).requires_grad_(true);
  const Routing routing =
      route({}, 2, x, {at::eye(4), at::Tensor(), fp32({0, 0, 0, 0}), {3}});
  torch::autograd::backward({routing.weights[0][0]}, {});
  // d softmax_3 / d z = p_3 (delta - p).
  CHECK(x.grad().allclose(
      fp32({-0.05, -0.025, -0.015, 0.09}).unsqueeze(0), 1e-5, 1e-7));
}

TEST_CASE("an expert's scale multiplies its weights after they are divided") {
  const at::AutoGradMode grad(true);
  RouterConfig config;
  config.renormalize = true;
  const at::Tensor none;
  const at::Tensor scales = fp32({2, 1, 4, 1}).requires_grad_(true);
  const at::Tensor logits = at::stack({fp32(kFour), fp32(kFour)});
  const Experts no_condensers;
  const RouterTensors router{
      at::eye(4), none, none, no_condensers, none, scales};
  const Routing routing = route(config, 2, logits, router);
  const Routing plain =
      route(config, 2, logits, {at::eye(4), none, none, no_condensers});
  CHECK(routing.selected.equal(plain.selected));
  const at::Tensor own =
      scales.detach().index_select(0, routing.selected.flatten());
  CHECK(routing.weights.detach().equal(
      plain.weights * own.view(plain.weights.sizes())));
  // Both tokens' weights add up.
  torch::autograd::backward({routing.weights.sum()}, {});
  at::Tensor expected = at::zeros({4});
  expected.scatter_add_(0, plain.selected.flatten(), plain.weights.flatten());
  CHECK(scales.grad().allclose(expected));
}

TEST_CASE("decoded tokens are routed as others are") {
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn(
      {5, 16}, at::make_generator<at::CPUGeneratorImpl>(3), at::kFloat);
  const at::Tensor weight = at::randn(
      {24, 16}, at::make_generator<at::CPUGeneratorImpl>(4), at::kFloat);
  const at::Tensor some = at::linspace(-0.2, 0.3, 24);
  for (const RouterScore score :
       {RouterScore::kSoftmaxThenTopk,
        RouterScore::kSigmoid,
        RouterScore::kTopkThenSoftmax}) {
    for (const bool all : {false, true}) {
      RouterConfig config{.score = score, .renormalize = all};
      if (all) {
        config.least_sum = 0.4;
        config.added_sum = 1e-3;
        config.scale = 2.5;
      }
      const at::Tensor extra = all ? some : at::Tensor();
      RouterTensors router{weight, extra, extra, {}, {}, extra};
      const Routing expected = route(config, 3, x, router);
      router.decodes = true;
      const Routing decoded = route(config, 3, x, router);
      CHECK(decoded.selected.equal(expected.selected));
      // Sums in another order.
      CHECK(at::allclose(decoded.logits, expected.logits, 1e-5, 1e-6));
      CHECK(at::allclose(decoded.probs, expected.probs, 1e-5, 1e-6));
      CHECK(at::allclose(decoded.weights, expected.weights, 1e-5, 1e-6));
    }
  }
}
