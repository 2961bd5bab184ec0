// SPDX-License-Identifier: Apache-2.0
#include "kernels/swiglu.h"

#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

constexpr std::array kActivations = {
    Activation::kSilu,
    Activation::kGeluTanh,
    Activation::kClampedSwiglu,
    Activation::kRelu2};

at::Tensor composed(const at::Tensor& gate_up, Activation activation) {
  if (activation == Activation::kRelu2) return at::relu(gate_up).square();
  const auto halves = gate_up.chunk(2, 1);
  if (activation == Activation::kClampedSwiglu) {
    const at::Tensor gate = halves[0].clamp_max(7);
    return gate * at::sigmoid(1.702 * gate) * (halves[1].clamp(-7, 7) + 1);
  }
  const at::Tensor act = activation == Activation::kSilu
                             ? at::silu(halves[0])
                             : at::gelu(halves[0], "tanh");
  return act * halves[1];
}

void check(const DeviceCase& where) {
  for (const std::int64_t width : {1, 13, 64, 257}) {
    for (const auto activation : kActivations) {
      CAPTURE(where.name, width, static_cast<int>(activation));
      // Exact in any dtype; some beyond the clamps.
      const bool clamped = activation == Activation::kClampedSwiglu;
      const at::Tensor x =
          values({31, inputs_of(activation) * width}, width, where)
              .mul(clamped ? 8 : 2);
      const at::Tensor dh = values({31, width}, 8, where);
      const at::Tensor deep = x.to(at::kDouble).requires_grad_();
      const at::Tensor truth = composed(deep, activation);
      const auto grads =
          torch::autograd::grad({truth}, {deep}, {dh.to(at::kDouble)});
      check_close(swiglu(on(where, x), activation), truth, where);
      check_close(
          swiglu_backward(on(where, dh), on(where, x), activation),
          grads[0],
          where);
    }
  }
}

}  // namespace

TEST_CASE("a closed, an open and a half-open gate") {
  // gate 0 closes; silu(100) is 100 and silu(−200) is 0 in float32.
  const at::Tensor x = at::tensor({0.f, 100.f, -200.f, 7.f, 3.f, 5.f});
  const at::Tensor h = swiglu(x.reshape({1, 6}));
  CHECK(h[0][0].item<float>() == 0.0f);
  CHECK(h[0][1].item<float>() == 300.0f);
  CHECK(std::abs(h[0][2].item<float>()) < 1e-30f);
}

TEST_CASE("the gate's gradient at 0 is half of dh times up") {
  const at::Tensor x = at::tensor({0.f, 0.f, 6.f, -4.f}).reshape({1, 4});
  const at::Tensor dh = at::tensor({1.f, 3.f}).reshape({1, 2});
  for (const auto activation : {Activation::kSilu, Activation::kGeluTanh}) {
    const at::Tensor d = swiglu_backward(dh, x, activation);
    CHECK(at::equal(d, at::tensor({3.f, -6.f, 0.f, 0.f}).reshape({1, 4})));
  }
}

TEST_CASE("beyond its clamps swiglu stays as it is and passes no gradient") {
  // Gate 9 counts as 7, up 8 as 7 and up -9 as -7; a closed gate gives 0
  // whatever up is.
  const at::Tensor x =
      at::tensor({9.f, 1.f, 1.f, 0.f, 2.f, 8.f, -9.f, 5.f}).reshape({1, 8});
  const auto kind = Activation::kClampedSwiglu;
  const at::Tensor h = swiglu(x, kind)[0];
  const auto act = [](double z) { return z / (1 + std::exp(-1.702 * z)); };
  CHECK(h[0].item<float>() == Approx(3 * act(7)));
  CHECK(h[1].item<float>() == Approx(8 * act(1)));
  CHECK(h[2].item<float>() == Approx(-6 * act(1)));
  CHECK(h[3].item<float>() == 0.0f);
  const at::Tensor d = swiglu_backward(at::ones({1, 4}), x, kind)[0];
  CHECK(d[0].item<float>() == 0.0f);
  CHECK(d[3].item<float>() == Approx(3));  // half of up + 1
  CHECK(d[4].item<float>() == Approx(act(7)));
  CHECK(d[5].item<float>() == 0.0f);
  CHECK(d[6].item<float>() == 0.0f);
}

TEST_CASE("without a gate, up is squared where it is positive") {
  const at::Tensor x = at::tensor({3.f, -2.f, 0.f, 0.5f}).reshape({1, 4});
  const at::Tensor h = swiglu(x, Activation::kRelu2);
  CHECK(at::equal(h, at::tensor({9.f, 0.f, 0.f, 0.25f}).reshape({1, 4})));
  const at::Tensor dh = at::full({1, 4}, 2.0f);
  const at::Tensor d = swiglu_backward(dh, x, Activation::kRelu2);
  CHECK(at::equal(d, at::tensor({12.f, 0.f, 0.f, 2.f}).reshape({1, 4})));
}

TEST_CASE("a NaN gate or up shows in h") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor x = at::tensor({nan, 1.f, 1.f, nan}).reshape({1, 4});
  for (const auto activation : kActivations) {
    CHECK(swiglu(x, activation).isnan().sum().item<int>() == 2);
  }
}

TEST_CASE("an expert without tokens or without neurons has an empty h") {
  CHECK(swiglu(at::empty({0, 8})).sizes() == at::IntArrayRef({0, 4}));
  CHECK(swiglu(at::empty({3, 0})).sizes() == at::IntArrayRef({3, 0}));
  CHECK(
      swiglu(at::empty({0, 5}), Activation::kRelu2).sizes() ==
      at::IntArrayRef({0, 5}));
  CHECK(
      swiglu_backward(at::empty({0, 4}), at::empty({0, 8})).sizes() ==
      at::IntArrayRef({0, 8}));
}

TEST_CASE("swiglu refuses what does not fit") {
  CHECK_THROWS_AS(swiglu(at::ones({2, 5})), InternalError);
  CHECK_THROWS_AS(swiglu(at::ones({4})), InternalError);
  CHECK_THROWS_AS(swiglu(at::ones({4, 2}).t()), InternalError);
  CHECK_THROWS_AS(
      swiglu_backward(at::ones({2, 3}), at::ones({2, 4})), InternalError);
}

TEST_CASE("swiglu equals its composition") {
  for (const auto& where : cpu_cases()) check(where);
}

TEST_CASE("swiglu equals its composition on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) check(where);
}

}  // namespace fettle::kernels
