// SPDX-License-Identifier: Apache-2.0
#include "kernels/expert_rows.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

at::Tensor integers(std::vector<std::int64_t> values, at::IntArrayRef sizes) {
  return at::tensor(values, at::kLong).reshape(sizes);
}

// Positions of 29 tokens with 3 choices among 80 rows; the choices past the
// 80th have none.
at::Tensor some_positions() {
  at::Tensor order = (at::arange(87, at::kLong) * 37).remainder(87);
  order.masked_fill_(order >= 80, -1);
  return order.reshape({29, 3});
}

at::Tensor composed(
    const at::Tensor& rows,
    const at::Tensor& position,
    const at::Tensor& weights) {
  const at::Tensor kept = position.ge(0).to(rows.dtype());
  const at::Tensor picked =
      rows.index_select(0, position.clamp_min(0).flatten())
          .reshape({position.size(0), position.size(1), rows.size(1)});
  return (picked * (weights * kept).unsqueeze(-1)).sum(1);
}

void check(const DeviceCase& where) {
  const DeviceCase fp32{where.device, at::kFloat, where.tolerance, where.name};
  const at::Tensor position = some_positions();
  // The last is more than a warp loads before it stores.
  for (const std::int64_t width : {5, 64, 131, 1104}) {
    CAPTURE(where.name, width);
    const at::Tensor rows = values({80, width}, 1, where);
    const at::Tensor weights = values({29, 3}, 2, fp32);
    const at::Tensor dy = values({29, width}, 3, where);
    const at::Tensor deep_rows = rows.to(at::kDouble).requires_grad_();
    const at::Tensor deep_weights = weights.to(at::kDouble).requires_grad_();
    const at::Tensor truth = composed(deep_rows, position, deep_weights);
    const auto grads = torch::autograd::grad(
        {truth}, {deep_rows, deep_weights}, {dy.to(at::kDouble)});

    const at::Tensor there = position.to(where.device);
    const at::Tensor w = on(fp32, weights);
    check_close(combine(on(where, rows), there, w), truth, where);
    const auto back =
        combine_backward(on(where, dy), on(where, rows), there, w);
    check_close(back.d_rows, grads[0], where);
    check_close(back.d_weights, grads[1], where);
    check_close(
        gather_rows_backward(on(where, rows), there),
        composed(rows, position, at::ones({29, 3})),
        where);
    const at::Tensor index = position.flatten().clamp_min(0);
    CHECK(same_bits(
        gather_rows(on(where, rows), index.to(where.device)).to(at::kCPU),
        on(where, rows).to(at::kCPU).index_select(0, index)));
  }
}

}  // namespace

TEST_CASE("rows are gathered by their index") {
  const at::Tensor x = at::arange(6, at::kFloat).reshape({3, 2});
  const at::Tensor got = gather_rows(x, integers({2, 0, 2}, {3}));
  CHECK(at::equal(
      got, at::tensor({4.f, 5.f, 0.f, 1.f, 4.f, 5.f}).reshape({3, 2})));
}

TEST_CASE("a token's choices are weighed and summed, absent ones left out") {
  const at::Tensor rows = at::tensor({1.f, 10.f, 100.f}).reshape({3, 1});
  const at::Tensor position = integers({2, 0, -1, 1, -1, -1}, {3, 2});
  const at::Tensor weights =
      at::tensor({0.5f, 3.f, 7.f, 2.f, 1.f, 1.f}).reshape({3, 2});
  for (const auto type : {at::kLong, at::kInt}) {
    const at::Tensor y = combine(rows, position.to(type), weights);
    CHECK(at::equal(y, at::tensor({53.f, 20.f, 0.f}).reshape({3, 1})));
  }
}

TEST_CASE("gradients reach each choice's row, and nothing else") {
  const at::Tensor dy = at::tensor({2.f, 4.f}).reshape({2, 1});
  const at::Tensor rows = at::tensor({1.f, 10.f, 100.f}).reshape({3, 1});
  const at::Tensor position = integers({2, -1, 0, -1}, {2, 2});
  const at::Tensor weights = at::full({2, 2}, 0.5f);
  const auto got = combine_backward(dy, rows, position, weights);
  CHECK(at::equal(got.d_rows, at::tensor({2.f, 0.f, 1.f}).reshape({3, 1})));
  CHECK(at::equal(
      got.d_weights, at::tensor({200.f, 0.f, 4.f, 0.f}).reshape({2, 2})));
  CHECK(at::equal(
      gather_rows_backward(rows, position),
      at::tensor({100.f, 1.f}).reshape({2, 1})));
}

TEST_CASE("expert rows may be empty") {
  const at::Tensor none = at::empty({0, 4});
  CHECK(gather_rows(at::ones({3, 4}), integers({}, {0})).size(0) == 0);
  const at::Tensor absent = integers({-1, -1}, {2, 1});
  CHECK(at::equal(combine(none, absent, at::ones({2, 1})), at::zeros({2, 4})));
  const auto back =
      combine_backward(at::ones({2, 4}), none, absent, at::ones({2, 1}));
  CHECK(at::equal(back.d_weights, at::zeros({2, 1})));
  CHECK(gather_rows_backward(none, at::empty({0, 2}, at::kLong)).size(0) == 0);
}

TEST_CASE("expert rows refuse what does not fit") {
  const at::Tensor x = at::ones({3, 4});
  const at::Tensor position = integers({0, 1}, {2, 1});
  const at::Tensor w = at::ones({2, 1});
  CHECK_THROWS_AS(gather_rows(x, integers({3}, {1})), InternalError);
  CHECK_THROWS_AS(gather_rows(x, integers({-1}, {1})), InternalError);
  CHECK_THROWS_AS(gather_rows(x, at::ones({1})), InternalError);
  CHECK_THROWS_AS(gather_rows(x.t(), integers({0}, {1})), InternalError);
  CHECK_THROWS_AS(combine(x, integers({0, 3}, {2, 1}), w), InternalError);
  CHECK_THROWS_AS(combine(x, position - 2, w), InternalError);
  CHECK_THROWS_AS(combine(x, position, at::ones({1, 2})), InternalError);
  CHECK_THROWS_AS(combine(x, position, w.to(at::kDouble)), InternalError);
  CHECK_THROWS_AS(
      combine(x, at::zeros({1, 65}, at::kLong), at::ones({1, 65})),
      InternalError);
  CHECK_THROWS_AS(combine_backward(x, x, position, w), InternalError);
}

TEST_CASE("expert rows equal their composition") {
  for (const auto& where : cpu_cases()) check(where);
}

TEST_CASE("expert rows equal their composition on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) check(where);
}

}  // namespace fettle::kernels
