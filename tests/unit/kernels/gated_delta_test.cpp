// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

const DeviceCase kDeltaCase{at::kCPU, at::kFloat, 1e-5, "float32 on the CPU"};

struct DeltaShape {
  std::int64_t key_heads, heads, key_size, value_size;
};

// The recurrence, token by token, on tensors of one sequence in float64.
at::Tensor recurrence(const GatedDeltaInputs& in, double eps) {
  const auto unit = [&](const at::Tensor& x) {
    const at::Tensor row = x * (x.pow(2).sum(-1, true) + eps).rsqrt();
    return row.repeat_interleave(in.v.size(1) / x.size(1), 1);
  };
  const at::Tensor q = unit(in.q) / std::sqrt(in.q.size(2)), k = unit(in.k);
  at::Tensor state =
      at::zeros({in.v.size(1), in.q.size(2), in.v.size(2)}, in.v.options());
  std::vector<at::Tensor> outs;
  for (std::int64_t n = 0; n < in.v.size(0); ++n) {
    state = state * in.g[n].exp().view({-1, 1, 1});
    const at::Tensor read = (state * k[n].unsqueeze(-1)).sum(1);
    const at::Tensor u = (in.v[n] - read) * in.beta[n].unsqueeze(-1);
    state = state + k[n].unsqueeze(-1) * u.unsqueeze(1);
    outs.push_back((state * q[n].unsqueeze(-1)).sum(1));
  }
  return at::stack(outs);
}

at::Tensor delta_rule(
    const GatedDeltaInputs& in, const GatedDeltaOptions& options) {
  std::vector<at::Tensor> outs;
  for (std::size_t s = 0; s + 1 < options.starts.size(); ++s) {
    const std::int64_t first = options.starts[s];
    const std::int64_t length = options.starts[s + 1] - first;
    if (length == 0) continue;
    const auto part = [&](const at::Tensor& x) {
      return x.narrow(0, first, length);
    };
    const GatedDeltaInputs sequence{
        part(in.q), part(in.k), part(in.v), part(in.g), part(in.beta)};
    outs.push_back(recurrence(sequence, options.eps));
  }
  return at::cat(outs, 0);
}

// Decays from hardly any to nearly all; how much is written from 0 to 1.
GatedDeltaInputs random_delta(
    std::int64_t tokens, const DeltaShape& shape, const DeviceCase& where) {
  const DeviceCase wide{at::kCPU, at::kFloat, 0, ""};
  return {
      values({tokens, shape.key_heads, shape.key_size}, 1, where),
      values({tokens, shape.key_heads, shape.key_size}, 2, where),
      values({tokens, shape.heads, shape.value_size}, 3, where),
      values({tokens, shape.heads}, 4, wide).mul_(3).exp_().neg_(),
      values({tokens, shape.heads}, 5, wide).mul_(2).sigmoid_()};
}

template <class F>
GatedDeltaInputs each_input(const GatedDeltaInputs& in, const F& f) {
  return {f(in.q), f(in.k), f(in.v), f(in.g), f(in.beta)};
}

GatedDeltaInputs inputs_on(
    const GatedDeltaInputs& in, const DeviceCase& where) {
  return {
      on(where, in.q),
      on(where, in.k),
      on(where, in.v),
      in.g.to(where.device),
      in.beta.to(where.device)};
}

// A gradient may cancel in a row: its error is as large as others make it, so
// the bound takes the root mean square of all.
at::Tensor as_row(const at::Tensor& x) { return x.reshape({1, -1}); }

void check_delta_shape(const DeviceCase& where, const DeltaShape& shape) {
  CAPTURE(where.name, shape.key_heads, shape.heads);
  CAPTURE(shape.key_size, shape.value_size);
  // One token, none, a few, around a chunk, and chunks with a rest.
  const GatedDeltaOptions options{{0, 1, 1, 4, 67, 131, 196, 350}, 1e-6, {}};
  const std::int64_t n = options.starts.back();
  const GatedDeltaInputs in = random_delta(n, shape, where);
  const at::Tensor dy = values({n, shape.heads, shape.value_size}, 6, where);
  const GatedDeltaInputs deep = each_input(in, [](const at::Tensor& x) {
    return x.to(at::kDouble).requires_grad_();
  });
  const at::Tensor truth = delta_rule(deep, options);
  const auto grads = torch::autograd::grad(
      {truth},
      {deep.q, deep.k, deep.v, deep.g, deep.beta},
      {dy.to(at::kDouble)});
  const GatedDeltaInputs inputs = inputs_on(in, where);
  const at::Tensor got = gated_delta(inputs, options);
  CHECK(got.scalar_type() == where.dtype);
  check_close(as_row(got), as_row(truth), where);
  const auto back = gated_delta_backward(on(where, dy), inputs, options);
  check_close(as_row(back.dq), as_row(grads[0]), where);
  check_close(as_row(back.dk), as_row(grads[1]), where);
  check_close(as_row(back.dv), as_row(grads[2]), where);
  check_close(as_row(back.dg), as_row(grads[3]), where);
  check_close(as_row(back.dbeta), as_row(grads[4]), where);
}

void check_delta(const DeviceCase& where) {
  check_delta_shape(where, {2, 2, 16, 16});
  check_delta_shape(where, {2, 4, 32, 24});
  check_delta_shape(where, {1, 3, 5, 7});  // nothing a multiple of lanes
}

// Tokens by turns, with the states that each turn leaves for the next.
void check_delta_steps(const DeviceCase& where) {
  CAPTURE(where.name);
  const GatedDeltaInputs in =
      inputs_on(random_delta(140, {1, 2, 16, 8}, where), where);
  const at::Tensor whole = gated_delta(in, {{0, 140}, 1e-6, {}});
  const at::Tensor state = at::zeros({2, 2, 16, 8}, in.g.options());
  std::int64_t from = 0;
  for (const std::int64_t length : {1, 2, 65, 1, 71}) {
    const GatedDeltaInputs some = each_input(in, [&](const at::Tensor& x) {
      const at::Tensor part = x.narrow(0, from, length);
      return at::cat({part, part});
    });
    const at::Tensor y =
        gated_delta(some, {{0, length, 2 * length}, 1e-6, state});
    for (const std::int64_t half : {std::int64_t{0}, length}) {
      check_close(
          as_row(y.narrow(0, half, length)),
          as_row(whole.narrow(0, from, length)).to(at::kDouble),
          where);
    }
    from += length;
  }
}

// A head of one value, with keys and queries of one dimension, which are 1 or
// -1 once normalised.
GatedDeltaInputs plain_inputs(std::int64_t tokens) {
  const at::Tensor one = at::ones({tokens, 1, 1});
  return {
      one,
      one,
      at::arange(1, tokens + 1, at::kFloat).view({tokens, 1, 1}),
      at::zeros({tokens, 1}),
      at::ones({tokens, 1})};
}

}  // namespace

TEST_CASE("what is written whole is read again") {
  const GatedDeltaInputs in = plain_inputs(130);
  const at::Tensor y = gated_delta(in, {{0, 130}, 0.0, {}});
  CHECK(at::allclose(y, in.v, 1e-5));
}

TEST_CASE("with nothing written a state only decays") {
  GatedDeltaInputs in = plain_inputs(100);
  in.beta.zero_();
  in.g.fill_(-0.125);
  const at::Tensor state = at::full({1, 1, 1, 1}, 2.0f);
  const at::Tensor y = gated_delta(in, {{0, 100}, 0.0, state});
  const at::Tensor decays = 2 * (at::arange(1, 101, at::kFloat) * -0.125).exp();
  CHECK(at::allclose(y.flatten(), decays, 1e-5));
  CHECK(at::allclose(state.flatten(), decays.narrow(0, 99, 1), 1e-5));
}

TEST_CASE("a sequence of a state of its own reads nothing of another") {
  GatedDeltaInputs in = plain_inputs(10);
  in.beta.narrow(0, 4, 6).zero_();
  const at::Tensor y = gated_delta(in, {{0, 4, 10}, 0.0, {}});
  CHECK(at::equal(y.narrow(0, 4, 6), at::zeros({6, 1, 1})));
}

TEST_CASE("equal keys written whole, of which sums of powers would overflow") {
  const GatedDeltaInputs random = random_delta(200, {1, 1, 16, 16}, kDeltaCase);
  GatedDeltaInputs in = random;
  in.k = random.k.narrow(0, 0, 1).expand({200, 1, 16}).contiguous();
  in.q = in.k;
  in.g.zero_();
  in.beta.fill_(1);
  const at::Tensor y = gated_delta(in, {{0, 200}, 1e-6, {}});
  check_close(y, in.v.to(at::kDouble) / 4, {at::kCPU, at::kFloat, 1e-4, ""});
}

TEST_CASE("the gated delta rule and its gradients are the recurrence's") {
  for (const auto& where : cpu_cases()) check_delta(where);
}

TEST_CASE("the gated delta rule goes on from its states") {
  for (const auto& where : cpu_cases()) check_delta_steps(where);
}

TEST_CASE("a decay to nothing forgets, and its gradients are finite") {
  GatedDeltaInputs in = random_delta(130, {1, 1, 8, 8}, kDeltaCase);
  in.g.fill_(-1000);
  const GatedDeltaOptions options{{0, 130}, 1e-6, {}};
  const at::Tensor y = gated_delta(in, options);
  const auto back = gated_delta_backward(y, in, options);
  for (const at::Tensor& x :
       {y, back.dq, back.dk, back.dv, back.dg, back.dbeta}) {
    CHECK(x.isfinite().all().item<bool>());
  }
}

// A chunk's products may show it in the chunk's earlier tokens too.
TEST_CASE("a NaN shows in the tokens from its own on, in its sequence alone") {
  GatedDeltaInputs in = random_delta(150, {1, 1, 8, 8}, kDeltaCase);
  in.v[70] = NAN;
  const at::Tensor bad =
      gated_delta(in, {{0, 5, 100, 150}, 1e-6, {}}).isnan().flatten(1).any(1);
  CHECK(bad.narrow(0, 70, 30).all().item<bool>());
  CHECK_FALSE(bad.narrow(0, 0, 69).any().item<bool>());
  CHECK_FALSE(bad.narrow(0, 100, 50).any().item<bool>());
}

TEST_CASE("the gated delta rule has the same bits on any number of threads") {
  const GatedDeltaInputs in = random_delta(300, {2, 4, 16, 16}, kDeltaCase);
  const GatedDeltaOptions options{{0, 90, 300}, 1e-6, {}};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = gated_delta(in, options);
  const auto alone = gated_delta_backward(one, in, options);
  at::set_num_threads(3);
  const at::Tensor three = gated_delta(in, options);
  const auto together = gated_delta_backward(three, in, options);
  at::set_num_threads(threads);
  CHECK(same_bits(one, three));
  CHECK(same_bits(alone.dq, together.dq));
  CHECK(same_bits(alone.dk, together.dk));
  CHECK(same_bits(alone.dv, together.dv));
  CHECK(same_bits(alone.dg, together.dg));
  CHECK(same_bits(alone.dbeta, together.dbeta));
}

TEST_CASE("the gated delta rule of no tokens is empty") {
  const GatedDeltaInputs in = random_delta(0, {1, 2, 4, 4}, kDeltaCase);
  const GatedDeltaOptions options{{0}, 1e-6, {}};
  const at::Tensor y = gated_delta(in, options);
  CHECK(y.sizes() == in.v.sizes());
  CHECK(gated_delta_backward(y, in, options).dq.sizes() == in.q.sizes());
}

TEST_CASE("the gated delta rule refuses what does not fit") {
  const GatedDeltaOptions options{{0, 6}, 1e-6, {}};
  const GatedDeltaInputs good = random_delta(6, {2, 4, 8, 8}, kDeltaCase);
  const auto refuses = [](const GatedDeltaInputs& in,
                          const GatedDeltaOptions& how) {
    CHECK_THROWS_AS(gated_delta(in, how), InternalError);
  };
  const auto refuses_part = [&](at::Tensor GatedDeltaInputs::*part,
                                const at::Tensor& bad) {
    GatedDeltaInputs in = good;
    in.*part = bad;
    refuses(in, options);
  };
  using In = GatedDeltaInputs;
  refuses_part(&In::q, at::ones({6, 2, 7}));
  refuses_part(&In::q, at::ones({6, 16}));
  refuses_part(&In::q, good.q.to(at::kDouble));
  refuses_part(&In::k, at::ones({5, 2, 8}));
  refuses_part(&In::k, good.k.to(at::kBFloat16));
  refuses_part(&In::k, at::ones({6, 8, 2}).transpose(1, 2));
  refuses_part(&In::v, at::ones({6, 3, 8}));
  refuses_part(&In::v, at::ones({5, 4, 8}));
  refuses_part(&In::g, at::ones({6, 3}));
  refuses_part(&In::beta, at::ones({6, 4}, at::kBFloat16));
  refuses(good, {{0, 5}, 1e-6, {}});
  refuses(good, {{0, 6}, 1e-6, at::zeros({1, 4, 8, 7})});
  CHECK_THROWS_AS(
      gated_delta_backward(at::ones({6, 4, 7}), good, options), InternalError);
  CHECK_THROWS_AS(
      gated_delta_backward(
          good.v, good, {{0, 6}, 1e-6, at::zeros({1, 4, 8, 8})}),
      InternalError);
}

TEST_CASE("the gated delta rule is the recurrence on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) {
    check_delta_shape(where, {2, 4, 16, 8});
    if (where.dtype == at::kFloat) check_delta_steps(where);
  }
}

}  // namespace fettle::kernels
