// SPDX-License-Identifier: Apache-2.0
#include "model/layers/padded_sequences.h"

#include <ATen/CPUGeneratorImpl.h>

#include <catch2/catch.hpp>

namespace fettle::model {
namespace {

using Rows = std::vector<std::int64_t>;

at::Tensor values(std::int64_t rows) {
  const auto generator = at::detail::createCPUGenerator(rows);
  return at::randn({rows, 2, 4}, generator, at::kFloat);
}

// Causal attention of x to itself: [S, T, 2, 4] each sequence alone.
at::Tensor attended(const at::Tensor& x) {
  const at::Tensor heads = x.transpose(1, 2);
  return at::scaled_dot_product_attention(heads, heads, heads, {}, 0.0, true)
      .transpose(1, 2);
}

TEST_CASE("sequences of one power of two fill one rectangle") {
  // Lengths 3, 1, 4, 0, 2, 5.
  const PaddedSequences padded({0, 3, 4, 8, 8, 10, 15}, at::kCPU);
  std::vector<Rows> found;
  for (const auto& [row, sequences, length] : padded.rectangles()) {
    found.push_back({row, sequences, length});
  }
  CHECK(
      found == std::vector<Rows>{{0, 1, 1}, {1, 1, 2}, {3, 2, 4}, {11, 1, 5}});
  const at::Tensor x = at::arange(15, at::kFloat).unsqueeze(1);
  const at::Tensor there = padded.pad(x).squeeze(1);
  const at::Tensor expected = at::tensor(
      {3, 8, 9, 0, 1, 2, 2, 4, 5, 6, 7, 10, 11, 12, 13, 14}, at::kFloat);
  CHECK(there.equal(expected));
  CHECK(padded.unpad(padded.pad(x)).equal(x));
}

TEST_CASE("gradients come back to tokens alone") {
  const PaddedSequences padded({0, 3, 7}, at::kCPU);
  at::Tensor x = values(7).set_requires_grad(true);
  const at::Tensor rows = padded.pad(x);
  const at::Tensor weights = values(8);
  (rows * weights).sum().backward();
  CHECK(x.grad().narrow(0, 0, 3).equal(weights.narrow(0, 0, 3)));
  CHECK(x.grad().narrow(0, 3, 4).equal(weights.narrow(0, 4, 4)));

  at::Tensor y = values(8).set_requires_grad(true);
  (padded.unpad(y) * values(7)).sum().backward();
  CHECK(y.grad()[3].equal(at::zeros({2, 4})));  // filling
  CHECK(y.grad().narrow(0, 4, 4).equal(values(7).narrow(0, 3, 4)));
}

TEST_CASE("attention of rectangles is that of each sequence") {
  const Rows starts{0, 3, 4, 8, 10, 15, 22};
  const PaddedSequences padded(starts, at::kCPU);
  at::Tensor x = values(22).set_requires_grad(true);
  at::Tensor alone = x.detach().clone().set_requires_grad(true);
  const at::Tensor rows = padded.pad(x);
  std::vector<at::Tensor> outs, expected;
  for (const auto& [row, sequences, length] : padded.rectangles()) {
    const at::Tensor some =
        rows.narrow(0, row, sequences * length).view({sequences, length, 2, 4});
    outs.push_back(attended(some).reshape({-1, 2, 4}));
  }
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    const at::Tensor one =
        alone.narrow(0, starts[i], starts[i + 1] - starts[i]);
    expected.push_back(attended(one.unsqueeze(0)).squeeze(0));
  }
  const at::Tensor found = padded.unpad(at::cat(outs));
  const at::Tensor known = at::cat(expected);
  CHECK(at::allclose(found, known, 1e-5, 1e-6));
  const at::Tensor dy = values(22) * 0.5;
  found.backward(dy);
  known.backward(dy);
  CHECK(at::allclose(x.grad(), alone.grad(), 1e-4, 1e-5));
}

}  // namespace
}  // namespace fettle::model
