// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/neuron_gradient.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>

using namespace fettle;

namespace {

// An expert's full gradients by autograd, beside what a tap would be shown.
struct Expert {
  at::Tensor gate, up, down;  // [I, H], [I, H], [H, I]; with gradients
  model::ExpertGradView view;
};

Expert run(std::int64_t n, std::int64_t width, std::int64_t hidden) {
  const auto leaf = [](std::vector<std::int64_t> shape) {
    return at::randn(shape).set_requires_grad(true);
  };
  Expert expert{
      leaf({width, hidden}), leaf({width, hidden}), leaf({hidden, width}), {}};
  const at::Tensor x = at::randn({n, hidden});
  const at::Tensor dy = at::randn({n, hidden});
  at::Tensor gate_up = at::cat({x.mm(expert.gate.t()), x.mm(expert.up.t())}, 1);
  gate_up.retain_grad();
  at::Tensor h =
      at::silu(gate_up.narrow(1, 0, width)) * gate_up.narrow(1, width, width);
  h.retain_grad();
  torch::autograd::backward({h.mm(expert.down.t())}, {dy});
  expert.view = {0, x, h.detach(), h.grad(), gate_up.grad(), dy, at::ones({n})};
  return expert;
}

}  // namespace

TEST_CASE("gradients of chosen neurons are columns of the full gradient") {
  at::manual_seed(3);
  const Expert expert = run(7, 6, 5);
  const at::Tensor columns = at::tensor({1, 4, 5}, at::kLong);
  at::Tensor sum = at::full({3, 3, 5}, 2.0);  // what earlier batches left
  tune::add_neuron_gradient(expert.view, columns, sum);
  const at::Tensor expected = at::stack(
      {expert.gate.grad().index_select(0, columns),
       expert.up.grad().index_select(0, columns),
       expert.down.grad().index_select(1, columns).t()});
  CHECK(at::allclose(sum - 2.0, expected, 1e-4, 1e-5));
}

TEST_CASE("neurons without a gate have gradients of up and down") {
  at::manual_seed(5);
  const auto leaf = [](std::vector<std::int64_t> shape) {
    return at::randn(shape).set_requires_grad(true);
  };
  const at::Tensor up = leaf({6, 5});
  const at::Tensor down = leaf({5, 6});
  const at::Tensor x = at::randn({7, 5});
  const at::Tensor dy = at::randn({7, 5});
  at::Tensor inner = x.mm(up.t());
  inner.retain_grad();
  at::Tensor h = at::relu(inner).square();
  h.retain_grad();
  torch::autograd::backward({h.mm(down.t())}, {dy});
  const model::ExpertGradView view{
      0, x, h.detach(), h.grad(), inner.grad(), dy, at::ones({7})};
  CHECK_FALSE(view.d_gate().defined());
  CHECK(view.d_up().equal(inner.grad()));
  const at::Tensor columns = at::tensor({0, 3}, at::kLong);
  at::Tensor sum = at::zeros({2, 2, 5});
  tune::add_neuron_gradient(view, columns, sum);
  CHECK(at::allclose(sum[0], up.grad().index_select(0, columns), 1e-4, 1e-5));
  CHECK(at::allclose(
      sum[1], down.grad().index_select(1, columns).t(), 1e-4, 1e-5));
  CHECK(at::allclose(
      tune::neuron_gradient_norms(view),
      up.grad().square().sum(1) + down.grad().square().sum(0),
      1e-4,
      1e-5));
}

TEST_CASE("norms are those of the full gradient's neurons") {
  at::manual_seed(4);
  // Few tokens take the Gram matrix, many the product itself.
  for (const std::int64_t n : {0, 1, 2, 40}) {
    const Expert expert = run(n, 6, 9);
    const at::Tensor expected = expert.gate.grad().square().sum(1) +
                                expert.up.grad().square().sum(1) +
                                expert.down.grad().square().sum(0);
    CHECK(at::allclose(
        tune::neuron_gradient_norms(expert.view), expected, 1e-4, 1e-6));
  }
}

TEST_CASE("opposite tokens cancel to a norm of nothing, never below") {
  const at::Tensor right = at::randn({1, 64}).repeat({2, 1});
  const at::Tensor left =
      at::tensor({1.0f, -1.0f}).view({2, 1}).repeat({1, 64});
  const at::Tensor norms = tune::product_row_norms(left, right);
  CHECK(norms.min().item<float>() >= 0.0f);
  CHECK(norms.max().item<float>() < 1e-4f);
}
