// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_entropy.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

at::Tensor targets(std::vector<std::int64_t> values) {
  return at::tensor(values, at::kLong);
}

struct Scored {
  float nll;
  at::Tensor gradient;
};

Scored score(std::vector<float> logits, std::int64_t target) {
  at::Tensor row = at::tensor(logits).reshape({1, -1});
  const at::Tensor picked = targets({target});
  const float plain = cross_entropy(row, picked).item<float>();
  const float fused =
      cross_entropy_with_gradient_(row, picked, 1.0).item<float>();
  CHECK((plain == fused || (std::isnan(plain) && std::isnan(fused))));
  return {plain, row[0]};
}

void check(const DeviceCase& where) {
  for (const std::int64_t vocab : {1, 9, 400, 5003}) {
    CAPTURE(where.name, vocab);
    const at::Tensor x = values({17, vocab}, vocab, where).mul(4);
    at::Tensor picked = (at::arange(17, at::kLong) * 7919).remainder(vocab);
    picked[3] = kIgnored;
    const at::Tensor deep = x.to(at::kDouble).requires_grad_();
    const at::Tensor truth =
        at::cross_entropy_loss(deep, picked, {}, at::Reduction::None, kIgnored);
    const auto grads = torch::autograd::grad({truth.sum() * 0.25}, {deep});

    at::Tensor logits = on(where, x);
    const at::Tensor there = picked.to(where.device);
    const at::Tensor nll = cross_entropy(logits, there);
    CHECK(nll.scalar_type() == at::kFloat);
    check_close(nll, truth, where);
    CHECK(same_bits(
        cross_entropy_with_gradient_(logits, there, 0.25).to(at::kCPU),
        nll.to(at::kCPU)));
    check_close(logits, grads[0], where);
  }
}

}  // namespace

TEST_CASE("uniform logits cost the logarithm of the vocabulary") {
  const auto got = score(std::vector<float>(512, -3.5f), 511);
  CHECK(got.nll == Approx(std::log(512.0)).epsilon(1e-7));
  CHECK(got.gradient[0].item<float>() == 1.0f / 512);
  CHECK(got.gradient[511].item<float>() == 1.0f / 512 - 1.0f);
}

TEST_CASE("a vocabulary of one costs nothing") {
  const auto got = score({5.0f}, 0);
  CHECK(got.nll == 0.0f);
  CHECK(got.gradient[0].item<float>() == 0.0f);
}

TEST_CASE("a logit of minus infinity has probability zero") {
  const auto got = score({0.0f, -kInf, 0.0f}, 0);
  CHECK(got.nll == Approx(std::log(2.0)).epsilon(1e-7));
  CHECK(at::equal(got.gradient, at::tensor({-0.5f, 0.0f, 0.5f})));
  const auto missed = score({0.0f, -kInf, 0.0f}, 1);
  CHECK(missed.nll == kInf);
  CHECK(at::equal(missed.gradient, at::tensor({0.5f, -1.0f, 0.5f})));
}

TEST_CASE("large logits neither overflow nor change the result") {
  const auto got = score({3e38f, 3e38f, -3e38f}, 1);
  CHECK(got.nll == Approx(std::log(2.0)).epsilon(1e-7));
  CHECK(at::equal(got.gradient, at::tensor({0.5f, -0.5f, 0.0f})));
}

TEST_CASE("a broken row is shown, not hidden") {
  CHECK(std::isnan(score({0.0f, kNan, 0.0f, 1.0f, 2.0f}, 0).nll));
  CHECK(std::isnan(score({kNan, 1.0f}, 1).nll));
  CHECK(std::isnan(score({-kInf, -kInf}, 1).nll));
}

TEST_CASE("an ignored row has no loss and no gradient") {
  at::Tensor logits = at::full({2, 70}, kNan);
  const at::Tensor nll =
      cross_entropy_with_gradient_(logits, targets({kIgnored, kIgnored}), 1.0);
  CHECK(at::equal(nll, at::zeros({2})));
  CHECK(at::equal(logits, at::zeros({2, 70})));
}

TEST_CASE("cross_entropy of no rows is empty") {
  CHECK(cross_entropy(at::empty({0, 5}), targets({})).numel() == 0);
}

TEST_CASE("cross_entropy refuses what does not fit") {
  const at::Tensor logits = at::zeros({2, 5});
  CHECK_THROWS_AS(cross_entropy(logits, targets({0, 5})), InternalError);
  CHECK_THROWS_AS(cross_entropy(logits, targets({0, -1})), InternalError);
  CHECK_THROWS_AS(cross_entropy(logits, targets({0})), InternalError);
  CHECK_THROWS_AS(
      cross_entropy(logits, targets({0, 1}).to(at::kInt)), InternalError);
  CHECK_THROWS_AS(
      cross_entropy(at::zeros({5, 2}).t(), targets({0, 1})), InternalError);
}

TEST_CASE("cross_entropy equals its composition") {
  for (const auto& where : cpu_cases()) check(where);
}

TEST_CASE("cross_entropy equals its composition on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) check(where);
}

}  // namespace fettle::kernels
