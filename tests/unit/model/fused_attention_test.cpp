// SPDX-License-Identifier: Apache-2.0
#include "model/layers/fused_attention.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/function.h>

#include <catch2/catch.hpp>

namespace fettle::model {
namespace {

struct Inputs {
  explicit Inputs(std::int64_t width) {
    const auto generator = at::detail::createCPUGenerator(7);
    for (at::Tensor* x : {&query, &key, &value}) {
      *x = at::randn({2, 3, 5, width}, generator, at::kFloat)
               .set_requires_grad(true);
    }
  }
  at::Tensor query, key, value;
};

TEST_CASE("fused attention has the gradients of what it stands for") {
  const bool causal = GENERATE(true, false);
  Inputs known(8), found(8);
  const at::Tensor expected = at::scaled_dot_product_attention(
      known.query, known.key, known.value, {}, 0.0, causal, 0.3);
  const at::Tensor out = fused_attention(
      found.query, found.key, found.value, {.causal = causal, .scale = 0.3});
  CHECK(out.equal(expected));
  const at::Tensor dy = at::sin(expected.detach() * 9);
  expected.backward(dy);
  out.backward(dy);
  CHECK(at::allclose(found.query.grad(), known.query.grad(), 1e-5, 1e-6));
  CHECK(at::allclose(found.key.grad(), known.key.grad(), 1e-5, 1e-6));
  CHECK(at::allclose(found.value.grad(), known.value.grad(), 1e-5, 1e-6));
}

TEST_CASE("only the backward pass of fused attention has a fixed order") {
  Inputs inputs(8);
  bool told = true;
  inputs.query.register_hook([&](const at::Tensor&) {
    told = at::globalContext().deterministicAlgorithms();
  });
  const at::Tensor out =
      fused_attention(inputs.query, inputs.key, inputs.value, {.scale = 1.0});
  CHECK(out.grad_fn()->name().find("InFixedOrder") != std::string::npos);
  out.sum().backward();
  CHECK_FALSE(told);
  CHECK_FALSE(at::globalContext().deterministicAlgorithms());
}

TEST_CASE("attention without gradients has no graph") {
  const at::NoGradGuard no_grad;
  const Inputs inputs(8);
  CHECK_FALSE(
      fused_attention(inputs.query, inputs.key, inputs.value, {.scale = 1.0})
          .requires_grad());
}

}  // namespace
}  // namespace fettle::model
