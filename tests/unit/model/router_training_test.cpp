// SPDX-License-Identifier: Apache-2.0
#include "model/layers/router_training.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>

#include "model/layers/dense_mixture.h"
#include "model/layers/experts.h"

using namespace fettle::model;

namespace {

constexpr std::int64_t kHidden = 6;
constexpr std::int64_t kTokens = 9;

// Experts of widths 3, 0, 2, 4, with biases and constants.
ExpertBank bank() {
  at::manual_seed(2);
  return {
      {0, 3, 3, 5, 9},
      at::randn({18, kHidden}),
      at::randn({9, kHidden}),
      at::randn({18}),
      at::randn({4, kHidden})};
}

at::Tensor output(const ExpertBank& bank, std::int64_t e, const at::Tensor& x) {
  const std::int64_t width = bank.width(e);
  const at::Tensor gate_up =
      bank.gate_up.narrow(0, 2 * bank.offsets[e], 2 * width);
  const at::Tensor both = at::mm(x, gate_up.t()) + bank.gate_up_bias_of(e);
  const at::Tensor h =
      at::silu(both.narrow(1, 0, width)) * both.narrow(1, width, width);
  return at::mm(h, bank.down.narrow(0, bank.offsets[e], width)) +
         bank.constant[e];
}

}  // namespace

TEST_CASE("products with the outputs of all experts") {
  const ExpertBank experts = bank();
  const at::Tensor x = at::randn({kTokens, kHidden});
  const at::Tensor dy = at::randn({kTokens, kHidden});
  const at::Tensor found = output_products(experts, x, dy);
  REQUIRE(found.sizes() == at::IntArrayRef({kTokens, 4}));
  for (std::int64_t e = 0; e < 4; ++e) {
    CHECK(at::allclose(
        found.select(1, e), (output(experts, e, x) * dy).sum(1), 1e-4, 1e-5));
  }
}

TEST_CASE("DenseMixer: the forward pass of few, the router's gradient of all") {
  for (const bool renormalize : {false, true}) {
    RouterConfig config;
    config.renormalize = renormalize;
    config.scale = renormalize ? 1.0 : 2.5;
    const ExpertBank experts = bank();
    const at::Tensor x = at::randn({kTokens, kHidden});
    const at::Tensor dy = at::randn({kTokens, kHidden});
    const at::Tensor weight = at::randn({4, kHidden}).set_requires_grad(true);
    const at::Tensor none;
    const std::vector<std::int64_t> no_condensers;
    const Routing routing =
        route(config, 2, x, {weight, none, none, no_condensers});
    const at::Tensor y = experts_forward(
        {0, experts},
        x,
        {routing.selected,
         routing.weights,
         weights_of_others(config, routing)});
    const at::Tensor sparse =
        experts_forward({0, experts}, x, {routing.selected, routing.weights});
    CHECK(y.equal(sparse));
    torch::autograd::backward({y}, {dy});

    // The mixture of all by its definition, outputs held fixed.
    const at::Tensor other = weight.detach().clone().set_requires_grad(true);
    const at::Tensor p = at::mm(x, other.t()).softmax(-1);
    const at::Tensor chosen =
        at::zeros_like(p, at::kBool).scatter_(1, routing.selected, true);
    at::Tensor mix = p;
    if (renormalize) {
      const at::Tensor sum =
          p.masked_fill(chosen.logical_not(), 0.0).sum(-1, true);
      mix = at::where(chosen, p / sum, p / sum.detach());
    }
    at::Tensor dense = at::zeros_like(x);
    for (std::int64_t e = 0; e < 4; ++e) {
      dense = dense + config.scale * mix.narrow(1, e, 1) *
                          output(experts, e, x).detach();
    }
    torch::autograd::backward({dense}, {dy});
    CHECK(at::allclose(weight.grad(), other.grad(), 1e-4, 1e-5));
  }
}

TEST_CASE("noise is the same however tokens are batched") {
  RouterTraining training;
  training.noise = 0.5;
  training.seed = 7;
  training.step = 3;
  const at::Tensor whole = gumbel_noise(training, 2, 0, 10, 4);
  const at::Tensor parts = at::cat(
      {gumbel_noise(training, 2, 0, 3, 4), gumbel_noise(training, 2, 3, 7, 4)});
  CHECK(whole.equal(parts));
  CHECK_FALSE(whole.equal(gumbel_noise(training, 1, 0, 10, 4)));
  training.step = 4;
  CHECK_FALSE(whole.equal(gumbel_noise(training, 2, 0, 10, 4)));
  training.noise = 1.0;
  const at::Tensor many = gumbel_noise(training, 0, 0, 20000, 4);
  // Mean 0.5772, deviation pi / sqrt 6; 80,000 draws err by 0.0045.
  CHECK(many.mean().item<double>() == Approx(0.5772).margin(0.02));
  CHECK(many.std().item<double>() == Approx(1.2825).margin(0.02));
}
