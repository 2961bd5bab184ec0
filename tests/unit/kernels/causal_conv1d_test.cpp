// SPDX-License-Identifier: Apache-2.0
#include "kernels/causal_conv1d.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

// One token, none, fewer than a filter sees, and more than a thread's strip.
const std::vector<std::int64_t> kFilterStarts{0, 1, 1, 3, 40, 41, 209};

struct Filter {
  std::int64_t channels, taps;
  bool bias, silu;
};

at::Tensor convolved(
    const at::Tensor& x,
    const at::Tensor& weight,
    const at::Tensor& bias,
    bool silu) {
  std::vector<at::Tensor> outs;
  for (std::size_t s = 0; s + 1 < kFilterStarts.size(); ++s) {
    const std::int64_t length = kFilterStarts[s + 1] - kFilterStarts[s];
    if (length == 0) continue;
    const at::Tensor sequence = x.narrow(0, kFilterStarts[s], length);
    const at::Tensor padded =
        at::constant_pad_nd(sequence.t().unsqueeze(0), {weight.size(1) - 1, 0});
    const std::vector<std::int64_t> one{1}, none{0};
    outs.push_back(
        at::conv1d(padded, weight.unsqueeze(1), bias, one, none, one, x.size(1))
            .squeeze(0)
            .t());
  }
  const at::Tensor z = at::cat(outs, 0);
  return silu ? at::silu(z) : z;
}

void check_filter(const DeviceCase& where, const Filter& shape) {
  CAPTURE(where.name, shape.channels, shape.taps, shape.bias, shape.silu);
  const std::int64_t n = kFilterStarts.back();
  const at::Tensor fused = values({n, shape.channels + 3}, 1, where);
  const at::Tensor x = fused.slice(1, 2, 2 + shape.channels);
  const at::Tensor weight = values({shape.channels, shape.taps}, 2, where);
  const at::Tensor bias = values({shape.channels}, 3, where);
  const at::Tensor dy = values({n, shape.channels}, 4, where);
  const auto deep = [](const at::Tensor& t) {
    return t.to(at::kDouble).requires_grad_();
  };
  const at::Tensor dx = deep(x), dw = deep(weight), db = deep(bias);
  const at::Tensor truth =
      convolved(dx, dw, shape.bias ? db : at::Tensor(), shape.silu);
  torch::autograd::variable_list inputs{dx, dw};
  if (shape.bias) inputs.push_back(db);
  const auto grads =
      torch::autograd::grad({truth}, inputs, {dy.to(at::kDouble)});

  const at::Tensor there = on(where, fused).slice(1, 2, 2 + shape.channels);
  const ConvolutionWeights weights{
      on(where, weight), shape.bias ? on(where, bias) : at::Tensor()};
  const ConvolutionOptions options{kFilterStarts, shape.silu, {}};
  check_close(causal_conv1d(there, weights, options), truth, where);
  const auto back =
      causal_conv1d_backward(on(where, dy), there, weights, options);
  check_close(back.dx, grads[0], where);
  CHECK(back.dweight.scalar_type() == at::kFloat);
  check_close(back.dweight, grads[1], where);
  CHECK(back.dbias.defined() == shape.bias);
  if (shape.bias) check_close(back.dbias, grads[2], where);
}

void check_filters(const DeviceCase& where) {
  check_filter(where, {300, 4, true, true});
  check_filter(where, {64, 4, false, true});
  check_filter(where, {33, 3, false, false});
  check_filter(where, {5, 2, true, false});
  check_filter(where, {7, 8, true, true});
  check_filter(where, {1, 5, false, true});
}

// Tokens by turns, with the state that each leaves for the next.
void check_filter_steps(const DeviceCase& where, std::int64_t taps) {
  CAPTURE(where.name, taps);
  const at::Tensor x = on(where, values({9, 6}, 1, where));
  const ConvolutionWeights weights{
      on(where, values({6, taps}, 2, where)), on(where, values({6}, 3, where))};
  const at::Tensor whole = causal_conv1d(x, weights, {{0, 9}, true, {}}).cpu();
  const at::Tensor state = at::zeros({2, taps - 1, 6}, x.options());
  std::int64_t from = 0;
  for (const std::int64_t length : {1, 2, 1, 5}) {
    // The second sequence has the same tokens, all but the first.
    const std::int64_t second = from == 0 ? 0 : length;
    const at::Tensor some = x.narrow(0, from, length);
    const at::Tensor y = causal_conv1d(
                             at::cat({some, some.narrow(0, 0, second)}),
                             weights,
                             {{0, length, length + second}, true, state})
                             .cpu();
    CHECK(same_bits(y.narrow(0, 0, length), whole.narrow(0, from, length)));
    if (from >= taps) {
      CHECK(same_bits(y.narrow(0, length, length), y.narrow(0, 0, length)));
    }
    from += length;
  }
  CHECK(at::equal(state[0].cpu(), x.narrow(0, 10 - taps, taps - 1).cpu()));
}

}  // namespace

TEST_CASE("a filter of its last weight alone gives the inputs") {
  const at::Tensor x = values({7, 5}, 1, cpu_cases()[0]);
  const at::Tensor weight = at::zeros({5, 4});
  weight.select(1, 3).fill_(1);
  const at::Tensor y = causal_conv1d(x, {weight, {}}, {{0, 3, 7}, false, {}});
  CHECK(at::equal(y, x));
}

TEST_CASE("a filter of its first weight alone looks back, not over a start") {
  const at::Tensor x = values({9, 5}, 1, cpu_cases()[0]);
  const at::Tensor weight = at::zeros({5, 3});
  weight.select(1, 0).fill_(1);
  const at::Tensor y = causal_conv1d(x, {weight, {}}, {{0, 3, 9}, false, {}});
  at::Tensor expected = at::zeros({9, 5});
  expected[2] = x[0];
  expected.narrow(0, 5, 4).copy_(x.narrow(0, 3, 4));
  CHECK(at::equal(y, expected));
}

TEST_CASE("a convolution of no inputs is its bias") {
  const at::Tensor y = causal_conv1d(
      at::zeros({3, 2}), {at::ones({2, 4}), at::ones({2})}, {{0, 3}, true, {}});
  check_close(
      y,
      at::full({3, 2}, 1 / (1 + std::exp(-1.0)), at::kDouble),
      cpu_cases()[0]);
}

TEST_CASE("a convolution goes on from its state") {
  for (const std::int64_t taps : {2, 4, 7})
    check_filter_steps(cpu_cases()[0], taps);
  check_filter_steps(cpu_cases()[1], 4);
}

TEST_CASE("a NaN shows in the tokens whose filter sees it") {
  at::Tensor x = at::ones({12, 3});
  x[4][1] = NAN;
  for (const std::int64_t taps : {2, 3, 5}) {
    const ConvolutionWeights weights{at::ones({3, taps}), {}};
    const ConvolutionOptions options{{0, 6, 12}, true, {}};
    const at::Tensor bad = causal_conv1d(x, weights, options).isnan();
    const at::Tensor expected = at::zeros({12, 3}, at::kBool);
    expected.select(1, 1)
        .slice(0, 4, std::min<std::int64_t>(6, 4 + taps))
        .fill_(true);
    CHECK(at::equal(bad, expected));
  }
}

TEST_CASE("a convolution has the same bits whatever the number of threads") {
  const at::Tensor x = values({400, 300}, 1, cpu_cases()[0]);
  const ConvolutionWeights weights{
      values({300, 4}, 2, cpu_cases()[0]), at::ones({300})};
  const ConvolutionOptions options{{0, 150, 400}, true, {}};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = causal_conv1d(x, weights, options);
  const auto alone = causal_conv1d_backward(x, x, weights, options);
  at::set_num_threads(3);
  const at::Tensor three = causal_conv1d(x, weights, options);
  const auto together = causal_conv1d_backward(x, x, weights, options);
  at::set_num_threads(threads);
  CHECK(same_bits(one, three));
  CHECK(same_bits(alone.dx, together.dx));
  CHECK(same_bits(alone.dweight, together.dweight));
  CHECK(same_bits(alone.dbias, together.dbias));
}

TEST_CASE("a convolution of no tokens is empty") {
  const at::Tensor x = at::empty({0, 8});
  const ConvolutionWeights weights{at::ones({8, 4}), at::ones({8})};
  const ConvolutionOptions options{{0}, true, {}};
  CHECK(causal_conv1d(x, weights, options).sizes() == x.sizes());
  const auto back = causal_conv1d_backward(x, x, weights, options);
  CHECK(at::equal(back.dweight, at::zeros({8, 4})));
  CHECK(at::equal(back.dbias, at::zeros({8})));
}

TEST_CASE("a convolution refuses what does not fit") {
  const at::Tensor x = at::ones({4, 8});
  const ConvolutionWeights weights{at::ones({8, 4}), at::ones({8})};
  const ConvolutionOptions options{{0, 4}, true, {}};
  const auto refuses = [](const at::Tensor& bad_x,
                          const ConvolutionWeights& bad,
                          const ConvolutionOptions& how) {
    CHECK_THROWS_AS(causal_conv1d(bad_x, bad, how), InternalError);
  };
  refuses(x, weights, {{0, 3}, true, {}});
  refuses(x, weights, {{1, 4}, true, {}});
  refuses(x, weights, {{}, true, {}});
  refuses(x, weights, {{0, 3, 2, 4}, true, {}});
  refuses(x, weights, {{0, 4}, true, at::zeros({1, 4, 8})});
  refuses(x, {at::ones({7, 4}), {}}, options);
  refuses(x, {at::ones({8, 1}), {}}, options);
  refuses(x, {at::ones({8, 9}), {}}, options);
  refuses(x, {at::ones({8, 4}), at::ones({7})}, options);
  refuses(x, {at::ones({8, 4}, at::kBFloat16), {}}, options);
  refuses(x.t(), {at::ones({4, 4}), {}}, {{0, 8}, true, {}});
  const auto refuses_gradient = [&](const at::Tensor& dy,
                                    const ConvolutionOptions& how) {
    CHECK_THROWS_AS(causal_conv1d_backward(dy, x, weights, how), InternalError);
  };
  refuses_gradient(at::ones({4, 7}), options);
  refuses_gradient(at::ones({4, 8}, at::kBFloat16), options);
  refuses_gradient(x, {{0, 3}, true, {}});
  refuses_gradient(x, {{0, 4}, true, at::zeros({1, 3, 8})});
}

TEST_CASE("a convolution equals its composition") {
  for (const auto& where : cpu_cases()) check_filters(where);
}

TEST_CASE("a convolution equals its composition on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) {
    check_filters(where);
    check_filter_steps(where, 4);
  }
}

}  // namespace fettle::kernels
