// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

struct Shape {
  std::int64_t heads, kv_heads, key_size, value_size, window;
};

const DeviceCase kCase{at::kCPU, at::kFloat, 1e-5, "float32 on the CPU"};

// The definition, sequence by sequence, with the whole matrix of scores.
at::Tensor composed(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const AttentionOptions& options) {
  std::vector<at::Tensor> outs;
  for (std::size_t s = 0; s + 1 < options.starts.size(); ++s) {
    const std::int64_t first = options.starts[s];
    const std::int64_t length = options.starts[s + 1] - first;
    const auto heads = [&](const at::Tensor& x) {
      return x.narrow(0, first, length)
          .transpose(0, 1)
          .repeat_interleave(q.size(1) / x.size(1), 0);
    };
    const at::Tensor index = at::arange(length);
    const at::Tensor distance = index.unsqueeze(1) - index.unsqueeze(0);
    at::Tensor hidden = distance.lt(0);
    if (options.window > 0) hidden.logical_or_(distance.ge(options.window));
    const at::Tensor scores =
        at::bmm(heads(q), heads(k).transpose(1, 2)) * options.scale;
    const at::Tensor weights =
        scores.masked_fill(hidden, -std::numeric_limits<double>::infinity())
            .softmax(-1);
    outs.push_back(at::bmm(weights, heads(v)).transpose(0, 1));
  }
  return at::cat(outs, 0);
}

void check_against_definition(const Shape& shape) {
  CAPTURE(shape.heads, shape.kv_heads, shape.key_size, shape.value_size);
  CAPTURE(shape.window);
  // One token, less than a tile, a tile, and tiles with a rest; one empty.
  const AttentionOptions options{
      {0, 1, 1, 18, 82, 223}, shape.window, 1 / std::sqrt(shape.key_size)};
  const std::int64_t n = options.starts.back();
  const at::Tensor q = values({n, shape.heads, shape.key_size}, 1, kCase);
  const at::Tensor k = values({n, shape.kv_heads, shape.key_size}, 2, kCase);
  const at::Tensor v = values({n, shape.kv_heads, shape.value_size}, 3, kCase);
  const at::Tensor dy = values({n, shape.heads, shape.value_size}, 4, kCase);
  const auto deep = [](const at::Tensor& x) {
    return x.to(at::kDouble).requires_grad_();
  };
  const at::Tensor dq = deep(q), dk = deep(k), dv = deep(v);
  const at::Tensor truth = composed(dq, dk, dv, options);
  const auto gradients =
      torch::autograd::grad({truth}, {dq, dk, dv}, {dy.to(at::kDouble)});
  const Attention got = attention(q, k, v, options);
  const auto back = attention_backward(dy, got, q, k, v, options);
  check_close(got.out.flatten(0, 1), truth.flatten(0, 1), kCase);
  // A score's gradient is a difference that may cancel (a lone token's is 0):
  // its error is as large as other tokens' gradients make it, so the bound
  // takes the root mean square of all.
  const auto one_row = [](const at::Tensor& x) { return x.reshape({1, -1}); };
  check_close(one_row(back.dq), one_row(gradients[0]), kCase);
  check_close(one_row(back.dk), one_row(gradients[1]), kCase);
  check_close(one_row(back.dv), one_row(gradients[2]), kCase);
}

}  // namespace

TEST_CASE("the first token of a sequence takes its own value") {
  const at::Tensor x = values({5, 2, 3}, 1, kCase);
  const Attention got = attention(x, x, x, {{0, 2, 5}, 0, 1.0});
  for (const std::int64_t first : {0, 2}) {
    CHECK(at::equal(got.out[first], x[first]));
  }
}

TEST_CASE("a window of one makes attention the identity on values") {
  const at::Tensor q = values({150, 2, 4}, 1, kCase);
  const at::Tensor v = values({150, 2, 8}, 2, kCase);
  CHECK(at::equal(attention(q, q, v, {{0, 150}, 1, 1.0}).out, v));
}

TEST_CASE("equal keys give the mean of what is seen") {
  const at::Tensor q = values({100, 1, 4}, 1, kCase);
  const at::Tensor k = at::ones({100, 1, 4});
  const at::Tensor v = at::arange(100, at::kFloat).view({100, 1, 1});
  const Attention got = attention(q, k, v, {{0, 100}, 0, 0.5});
  check_close(
      got.out.view({100, 1}), v.to(at::kDouble).view({100, 1}) / 2, kCase);
}

TEST_CASE("attention and its gradients are those of the definition") {
  check_against_definition({4, 4, 32, 32, 0});
  check_against_definition({8, 2, 64, 64, 0});
  check_against_definition({2, 1, 24, 16, 0});   // MLA: values narrower
  check_against_definition({3, 3, 5, 7, 0});     // nothing a multiple of lanes
  check_against_definition({4, 2, 16, 16, 10});  // window in a tile
  check_against_definition({2, 2, 16, 16, 64});
  check_against_definition({2, 2, 16, 16, 100});  // across tiles
}

TEST_CASE("scores far apart neither overflow nor vanish") {
  const at::Tensor q = values({130, 1, 8}, 1, kCase) * 100;
  const Attention got = attention(q, q, q, {{0, 130}, 0, 1.0});
  CHECK(got.out.isfinite().all().item<bool>());
  const auto back = attention_backward(q, got, q, q, q, {{0, 130}, 0, 1.0});
  CHECK(back.dq.isfinite().all().item<bool>());
}

TEST_CASE("a NaN shows in every token that sees it and in no other") {
  at::Tensor k = values({70, 1, 4}, 1, kCase);
  const at::Tensor q = values({70, 1, 4}, 2, kCase);
  k[3] = std::numeric_limits<float>::quiet_NaN();
  for (const std::int64_t window : {0, 2}) {
    const at::Tensor bad = attention(q, k, q, {{0, 70}, window, 1.0})
                               .out.isnan()
                               .flatten(1)
                               .any(1);
    const std::int64_t last = window == 0 ? 70 : 5;
    CHECK(bad.narrow(0, 3, last - 3).all().item<bool>());
    CHECK(bad.sum().item<std::int64_t>() == last - 3);
  }
}

TEST_CASE("attention has the same bits whatever the number of threads") {
  const at::Tensor q = values({400, 4, 16}, 1, kCase);
  const at::Tensor k = values({400, 2, 16}, 2, kCase);
  const AttentionOptions options{{0, 150, 400}, 0, 0.25};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Attention one = attention(q, k, k, options);
  const auto alone = attention_backward(q, one, q, k, k, options);
  at::set_num_threads(3);
  const Attention three = attention(q, k, k, options);
  const auto together = attention_backward(q, three, q, k, k, options);
  at::set_num_threads(threads);
  CHECK(same_bits(one.out, three.out));
  CHECK(same_bits(alone.dq, together.dq));
  CHECK(same_bits(alone.dk, together.dk));
  CHECK(same_bits(alone.dv, together.dv));
}

TEST_CASE("no tokens give no rows") {
  const at::Tensor x = at::empty({0, 2, 4});
  CHECK(attention(x, x, x, {{0}, 0, 1.0}).out.sizes() == x.sizes());
}

TEST_CASE("attention refuses what does not fit") {
  const at::Tensor x = at::ones({4, 2, 4});
  const AttentionOptions whole{{0, 4}, 0, 1.0};
  CHECK_THROWS_AS(attention(x, x, x, {{0, 3}, 0, 1.0}), InternalError);
  CHECK_THROWS_AS(attention(x, x, x, {{0, 3, 2, 4}, 0, 1.0}), InternalError);
  CHECK_THROWS_AS(attention(x, x, x, {{0, 4}, -1, 1.0}), InternalError);
  CHECK_THROWS_AS(attention(x, at::ones({4, 3, 4}), x, whole), InternalError);
  CHECK_THROWS_AS(attention(x, x, at::ones({3, 2, 4}), whole), InternalError);
  CHECK_THROWS_AS(attention(x.to(at::kDouble), x, x, whole), InternalError);
  const Attention got = attention(x, x, x, whole);
  CHECK_THROWS_AS(
      attention_backward(at::ones({4, 2, 3}), got, x, x, x, whole),
      InternalError);
}

}  // namespace fettle::kernels
