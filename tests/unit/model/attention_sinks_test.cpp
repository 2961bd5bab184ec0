// SPDX-License-Identifier: Apache-2.0
// Sinks against a softmax that is written out.
#include "model/layers/attention_sinks.h"

#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <catch2/catch.hpp>
#include <limits>
#include <vector>

#include "model/layers/differentiable.h"

using namespace fettle;
using namespace fettle::model;

namespace {

constexpr std::int64_t kSinkHeads = 4, kSinkKvHeads = 2, kSinkWidth = 6;
constexpr double kSinkScale = 0.7;

at::Tensor sink_values(at::IntArrayRef sizes, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator, at::kFloat);
}

// [T, heads, D] of one sequence, in float64.
at::Tensor written_out(
    const std::array<at::Tensor, 3>& qkv,
    const at::Tensor& sinks,
    std::int64_t window) {
  const std::int64_t length = qkv[0].size(0);
  const auto heads = [&](const at::Tensor& x) {
    return x.to(at::kDouble)
        .repeat_interleave(kSinkHeads / x.size(1), 1)
        .transpose(0, 1);
  };
  const at::Tensor index = at::arange(length);
  const at::Tensor distance = index.unsqueeze(1) - index.unsqueeze(0);
  at::Tensor hidden = distance.lt(0);
  if (window > 0) hidden = hidden.logical_or(distance.ge(window));
  const at::Tensor scores =
      (at::matmul(heads(qkv[0]), heads(qkv[1]).transpose(1, 2)) * kSinkScale)
          .masked_fill(hidden, -std::numeric_limits<double>::infinity());
  const at::Tensor last = sinks.to(at::kDouble)
                              .view({kSinkHeads, 1, 1})
                              .expand({kSinkHeads, length, 1});
  const at::Tensor shares =
      at::softmax(at::cat({scores, last}, 2), 2).narrow(2, 0, length);
  return at::matmul(shares, heads(qkv[2])).transpose(0, 1);
}

std::array<at::Tensor, 3> sink_inputs(std::int64_t length) {
  return {
      sink_values({length, kSinkHeads, kSinkWidth}, 1),
      sink_values({length, kSinkKvHeads, kSinkWidth}, 2),
      sink_values({length, kSinkKvHeads, kSinkWidth}, 3)};
}

void check_sinks(const at::Tensor& found, const at::Tensor& expected) {
  CHECK(at::allclose(found.to(at::kDouble), expected, 1e-5, 1e-5));
}

at::Tensor one_batch(const at::Tensor& x) {
  return x.transpose(0, 1).unsqueeze(0);
}

}  // namespace

TEST_CASE("a sink as likely as its only token takes half of its value") {
  const at::Tensor one = at::ones({1, 1, 1});
  const at::Tensor out =
      causal_attention(one, one, one, {{0, 1}, 0, 1.0}, at::full({1}, 1.0));
  CHECK(out.item<float>() == Approx(0.5));
}

TEST_CASE("sinks and their gradients, with and without a window") {
  const std::int64_t window = GENERATE(0, 1, 5, 12, 13);
  auto qkv = sink_inputs(13);
  at::Tensor sinks = sink_values({kSinkHeads}, 4);
  std::vector<at::Tensor> leaves{qkv[0], qkv[1], qkv[2], sinks};
  for (at::Tensor& leaf : leaves) leaf.requires_grad_();
  const at::Tensor expected = written_out(qkv, sinks, window);
  const at::Tensor found = causal_attention(
      qkv[0], qkv[1], qkv[2], {{0, 13}, window, kSinkScale}, sinks);
  check_sinks(found, expected);
  const at::Tensor slope = sink_values({13, kSinkHeads, kSinkWidth}, 5);
  const auto wanted =
      torch::autograd::grad({expected}, leaves, {slope.to(at::kDouble)});
  const auto gradients = torch::autograd::grad({found}, leaves, {slope});
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    check_sinks(gradients[i], wanted[i].to(at::kDouble));
  }
}

TEST_CASE("documents have sinks of their own") {
  const auto qkv = sink_inputs(9);
  const at::Tensor sinks = sink_values({kSinkHeads}, 6);
  const at::Tensor found = causal_attention(
      qkv[0], qkv[1], qkv[2], {{0, 4, 9}, 3, kSinkScale}, sinks);
  for (const auto& [first, rows] : {std::pair{0, 4}, std::pair{4, 5}}) {
    std::array<at::Tensor, 3> own;
    for (std::size_t i = 0; i < 3; ++i) own[i] = qkv[i].narrow(0, first, rows);
    check_sinks(found.narrow(0, first, rows), written_out(own, sinks, 3));
  }
}

TEST_CASE("a token in front is a sink") {
  const auto qkv = sink_inputs(7);
  const at::Tensor sinks = sink_values({kSinkHeads}, 7);
  const AttentionInputs longer = with_sink_token(
      {one_batch(qkv[0]), one_batch(qkv[1]), one_batch(qkv[2])},
      sinks,
      kSinkScale);
  const auto heads = [&](const at::Tensor& x) {
    return x.repeat_interleave(kSinkHeads / x.size(1), 1);
  };
  const at::Tensor out = at::scaled_dot_product_attention(
      longer.query,
      heads(longer.key),
      heads(longer.value),
      {},
      0.0,
      /*is_causal=*/true,
      kSinkScale);
  check_sinks(
      out[0].narrow(1, 1, 7).transpose(0, 1), written_out(qkv, sinks, 0));
}

TEST_CASE("one query sees all keys and the sink") {
  const auto qkv = sink_inputs(8);
  const at::Tensor sinks = sink_values({kSinkHeads}, 8);
  const at::Tensor found = attend_with_sinks(
      {one_batch(qkv[0].narrow(0, 7, 1)), one_batch(qkv[1]), one_batch(qkv[2])},
      sinks,
      kSinkScale);
  check_sinks(
      found[0].transpose(0, 1), written_out(qkv, sinks, 0).narrow(0, 7, 1));
}
