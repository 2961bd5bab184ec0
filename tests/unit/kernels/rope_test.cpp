// SPDX-License-Identifier: Apache-2.0
#include "kernels/rope.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

// The rotation written out: pairs moved to two halves, rotated, moved back.
at::Tensor composed(
    const at::Tensor& x, const at::Tensor& angles, const RopeOptions& options) {
  const std::int64_t half = angles.size(1);
  const std::int64_t end = options.start + 2 * half;
  const at::Tensor cos = angles.cos().unsqueeze(1);
  const at::Tensor sin = angles.sin().unsqueeze(1);
  const at::Tensor turned = x.slice(2, options.start, end);
  const bool halves = options.pairing == RopePairing::kHalf;
  const at::Tensor a =
      halves ? turned.slice(2, 0, half) : turned.slice(2, 0, {}, 2);
  const at::Tensor b =
      halves ? turned.slice(2, half) : turned.slice(2, 1, {}, 2);
  const at::Tensor first = a * cos - b * sin, second = b * cos + a * sin;
  const at::Tensor rotated = halves ? at::cat({first, second}, 2)
                                    : at::stack({first, second}, 3).flatten(2);
  return at::cat({x.slice(2, 0, options.start), rotated, x.slice(2, end)}, 2);
}

// What is turned: x has heads of 80 dimensions, `gap` values apart.
struct Shape {
  std::int64_t heads = 3;
  std::int64_t size = 80;
  std::int64_t gap = 0;
};

void check_one(
    const DeviceCase& where,
    std::int64_t half,
    const RopeOptions& options,
    const Shape& shape = {}) {
  CAPTURE(where.name, half, options.start, static_cast<int>(options.pairing));
  CAPTURE(shape.heads, shape.size, shape.gap);
  const DeviceCase fp32{where.device, at::kFloat, where.tolerance, where.name};
  const std::int64_t n = shape.heads, wide = shape.size + shape.gap;
  const at::Tensor x = values({11, n, wide}, half, where).slice(2, shape.gap);
  const at::Tensor dy = values({11, n, wide}, 9, where).slice(2, shape.gap);
  const at::Tensor angles = values({11, half}, 10, fp32).mul(3);
  const at::Tensor deep = x.to(at::kDouble).requires_grad_();
  const at::Tensor truth = composed(deep, angles.to(at::kDouble), options);
  const auto grads =
      torch::autograd::grad({truth}, {deep}, {dy.to(at::kDouble)});
  const at::Tensor cos = on(fp32, angles.cos()), sin = on(fp32, angles.sin());
  check_close(rope(on(where, x), cos, sin, options), truth, where);
  check_close(rope_backward(on(where, dy), cos, sin, options), grads[0], where);
}

void check(const DeviceCase& where) {
  for (const auto pairing : {RopePairing::kHalf, RopePairing::kInterleaved}) {
    check_one(where, 40, {.pairing = pairing});
    check_one(where, 16, {.pairing = pairing, .start = 48});
    check_one(where, 7, {.pairing = pairing, .start = 3});
    check_one(where, 0, {.pairing = pairing, .start = 80});
    // Heads that a GPU turns by the same thread, and some left over; rows that
    // are not aligned.
    for (const std::int64_t heads : {1, 4, 9}) {
      const RopeOptions options{.pairing = pairing};
      check_one(where, 32, options, {.heads = heads, .size = 64});
      check_one(where, 64, options, {.heads = heads, .size = 128, .gap = 8});
      check_one(where, 48, options, {.heads = heads, .size = 96, .gap = 1});
      check_one(where, 32, options, {.heads = heads, .size = 192});
    }
  }
}

}  // namespace

TEST_CASE("a quarter turn swaps each pair and negates one") {
  const at::Tensor x = at::tensor({1.f, 2.f, 3.f, 4.f, 9.f}).reshape({1, 1, 5});
  const at::Tensor cos = at::zeros({1, 2}), sin = at::ones({1, 2});
  CHECK(at::equal(
      rope(x, cos, sin).flatten(), at::tensor({-3.f, -4.f, 1.f, 2.f, 9.f})));
  CHECK(at::equal(
      rope(x, cos, sin, {.pairing = RopePairing::kInterleaved}).flatten(),
      at::tensor({-2.f, 1.f, -4.f, 3.f, 9.f})));
  CHECK(at::equal(
      rope(x, cos, sin, {.start = 1}).flatten(),
      at::tensor({1.f, -4.f, -9.f, 2.f, 3.f})));
}

TEST_CASE("backward undoes a quarter turn") {
  const at::Tensor x = at::arange(24, at::kFloat).reshape({2, 2, 6});
  const at::Tensor cos = at::zeros({2, 3}), sin = at::ones({2, 3});
  for (const auto pairing : {RopePairing::kHalf, RopePairing::kInterleaved}) {
    const RopeOptions options{.pairing = pairing};
    const at::Tensor there = rope(x, cos, sin, options);
    CHECK(at::equal(rope_backward(there, cos, sin, options), x));
  }
}

TEST_CASE("rope reads strided heads") {
  const DeviceCase where = cpu_cases()[0];
  const at::Tensor q = values({4, 6, 32}, 1, where).slice(1, 2, 5);
  const at::Tensor angles = values({4, 16}, 2, where);
  CHECK(same_bits(
      rope(q, angles.cos(), angles.sin()),
      rope(q.contiguous(), angles.cos(), angles.sin())));
}

TEST_CASE("rope of no tokens is empty") {
  const at::Tensor none = at::empty({0, 4});
  CHECK(rope(at::empty({0, 2, 8}), none, none).numel() == 0);
}

TEST_CASE("rope refuses what does not fit") {
  const at::Tensor x = at::ones({2, 3, 8}), table = at::ones({2, 4});
  CHECK_THROWS_AS(rope(x[0], table, table), InternalError);
  CHECK_THROWS_AS(rope(x, at::ones({2, 5}), at::ones({2, 5})), InternalError);
  CHECK_THROWS_AS(rope(x, at::ones({1, 4}), table), InternalError);
  CHECK_THROWS_AS(rope(x, table, at::ones({2, 3})), InternalError);
  CHECK_THROWS_AS(rope(x, table, table, {.start = 1}), InternalError);
  CHECK_THROWS_AS(rope(x, table, table, {.start = -1}), InternalError);
  CHECK_THROWS_AS(rope(x.to(at::kDouble), table, table), InternalError);
}

TEST_CASE("rope equals its composition") {
  for (const auto& where : cpu_cases()) check(where);
}

TEST_CASE("rope equals its composition on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) check(where);
}

}  // namespace fettle::kernels
