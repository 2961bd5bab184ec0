// SPDX-License-Identifier: Apache-2.0
#include "kernels/rms_norm.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

constexpr double kEps = 1e-6;

at::Tensor composed(const at::Tensor& x, const at::Tensor& w, double offset) {
  return x * at::rsqrt(x.pow(2).mean(-1, true) + kEps) * (offset + w);
}

// A tensor of x's values with rows that lie `gap` values apart.
at::Tensor spaced(const at::Tensor& x, std::int64_t gap) {
  const at::Tensor wider = at::zeros({x.size(0), x.size(1) + gap}, x.options());
  const at::Tensor result = wider.slice(1, gap);
  result.copy_(x);
  return result;
}

struct Layout {
  std::int64_t gap = 0;
  double offset = 0.0;  // of the weight
};

void check_one(
    const DeviceCase& where,
    std::int64_t rows,
    std::int64_t width,
    const Layout& layout = {}) {
  const auto [gap, offset] = layout;
  CAPTURE(where.name, rows, width, gap, offset);
  const at::Tensor x = values({rows, width}, width, where);
  const at::Tensor w = values({width}, 1, where);
  const at::Tensor dy = values({rows, width}, 2, where);
  const at::Tensor deep_x = x.to(at::kDouble).requires_grad_();
  const at::Tensor deep_w = w.to(at::kDouble).requires_grad_();
  const at::Tensor truth = composed(deep_x, deep_w, offset);
  const auto grads =
      torch::autograd::grad({truth}, {deep_x, deep_w}, {dy.to(at::kDouble)});

  const at::Tensor there = spaced(on(where, x), gap);
  const at::Tensor there_dy = spaced(on(where, dy), gap);
  const auto got = rms_norm(there, on(where, w), kEps, {.offset = offset});
  check_close(got.y, truth, where);
  const auto back = rms_norm_backward(
      there_dy,
      there,
      on(where, w),
      got.rstd,
      {.offset = offset, .weight_gradient = true});
  CHECK(back.dw.scalar_type() == at::kFloat);
  check_close(back.dw, grads[1], where);
  const auto alone = rms_norm_backward(
      there_dy, there, on(where, w), got.rstd, {.offset = offset});
  // A row of one value is normalised to its sign: the gradient is all but 0,
  // and only its size against dy·w·rstd means anything.
  if (width == 1) return;
  check_close(back.dx, grads[0], where);
  check_close(alone.dx, grads[0], where);
}

// Widths of heads and of layers, and others around the vector lengths and
// around those from which a GPU gives a row more threads; with vectors of 16
// bytes, and one by one where rows are odd or not aligned.
void check(const DeviceCase& where) {
  for (const std::int64_t width : {1, 7, 33, 64, 80, 96, 101, 128, 192, 256}) {
    check_one(where, 67, width);
  }
  for (const std::int64_t width : {516, 1000, 1024, 1600, 2049, 2056}) {
    check_one(where, 13, width);
  }
  for (const std::int64_t width : {8200, 16408}) check_one(where, 2, width);
  for (const std::int64_t gap : {1, 8}) {
    for (const std::int64_t width : {64, 128, 200, 512}) {
      check_one(where, 35, width, {.gap = gap});
    }
  }
  check_one(where, 1, 64);
  for (const std::int64_t width : {33, 128, 8200}) {
    check_one(where, 5, width, {.offset = 1.0});
  }
  check_one(where, 5000, 24);  // many blocks of sums, of unlike sizes
}

}  // namespace

TEST_CASE("a constant row is normalised to the weight") {
  const auto got = rms_norm(at::full({2, 40}, 3.0f), at::full({40}, 2.0f), 0.0);
  CHECK(at::equal(got.y, at::full({2, 40}, 2.0f)));
  CHECK(at::allclose(got.rstd, at::full({2}, 1.0f / 3.0f), 1e-7, 0.0));
}

TEST_CASE("a weight of zeros with an offset of one is a weight of ones") {
  const DeviceCase where = cpu_cases()[0];
  const at::Tensor x = values({5, 70}, 3, where);
  const auto shifted = rms_norm(x, at::zeros({70}), kEps, {.offset = 1.0});
  CHECK(same_bits(shifted.y, rms_norm(x, at::ones({70}), kEps).y));
}

TEST_CASE("a row of zeros stays zero and eps bounds its scale") {
  const auto got = rms_norm(at::zeros({1, 9}), at::ones({9}), 0.25);
  CHECK(at::equal(got.y, at::zeros({1, 9})));
  CHECK(got.rstd.item<float>() == 2.0f);
}

TEST_CASE("the gradient is at a right angle to the row when eps is 0") {
  const DeviceCase where = cpu_cases()[0];
  const at::Tensor x = values({5, 300}, 3, where);
  const at::Tensor w = values({300}, 4, where);
  const at::Tensor dy = values({5, 300}, 5, where);
  const auto got = rms_norm(x, w, 0.0);
  const at::Tensor dx = rms_norm_backward(dy, x, w, got.rstd).dx;
  const at::Tensor cosine = (dx * x).sum(-1) / (dx.norm(2, -1) * x.norm(2, -1));
  CHECK(cosine.abs().max().item<float>() < 1e-6f);
}

TEST_CASE("without a wish for it there is no gradient of the norm's weight") {
  const at::Tensor x = at::ones({2, 4});
  const auto got = rms_norm(x, at::ones({4}), 0.0);
  CHECK_FALSE(rms_norm_backward(x, x, at::ones({4}), got.rstd).dw.defined());
}

TEST_CASE("heads are normalised one by one, strided or not") {
  const DeviceCase where = cpu_cases()[0];
  const at::Tensor fused = values({6, 5, 33}, 6, where);
  const at::Tensor heads = fused.slice(1, 1, 4);  // [6, 3, 33], strided
  const at::Tensor w = values({33}, 7, where);
  const auto got = rms_norm(heads, w, kEps);
  const auto flat = rms_norm(heads.reshape({18, 33}), w, kEps);
  CHECK(got.y.is_contiguous());
  CHECK(same_bits(got.y.reshape({18, 33}), flat.y));
  const auto back = rms_norm_backward(heads, heads, w, got.rstd);
  const auto flat_back = rms_norm_backward(
      heads.reshape({18, 33}), heads.reshape({18, 33}), w, flat.rstd);
  CHECK(same_bits(back.dx.reshape({18, 33}), flat_back.dx));
}

TEST_CASE("heads inside a fused projection are normalised as if alone") {
  for (const auto& where : cpu_cases()) {
    const at::Tensor fused = on(where, values({37, 6 * 64}, 8, where));
    const at::Tensor heads =
        fused.slice(1, 64, 4 * 64).unflatten(1, {3, 64});  // [37, 3, 64]
    const at::Tensor flat = heads.reshape({37 * 3, 64});
    const at::Tensor w = on(where, values({64}, 7, where));
    const auto got = rms_norm(heads, w, kEps);
    const auto alone = rms_norm(flat, w, kEps);
    CHECK(same_bits(got.y.reshape({37 * 3, 64}), alone.y));
    CHECK(same_bits(got.rstd, alone.rstd));
    const RmsNormBackwardOptions options{.weight_gradient = true};
    const auto back = rms_norm_backward(heads, heads, w, got.rstd, options);
    const auto back_alone = rms_norm_backward(flat, flat, w, got.rstd, options);
    CHECK(same_bits(back.dx.reshape({37 * 3, 64}), back_alone.dx));
    CHECK(same_bits(back.dw, back_alone.dw));
  }
}

TEST_CASE("a NaN in a row shows in that row alone") {
  at::Tensor x = values({9, 64}, 1, cpu_cases()[0]);
  x[4][10] = NAN;
  const at::Tensor w = at::ones({64}), dy = at::ones({9, 64});
  const auto got = rms_norm(x, w, kEps);
  const at::Tensor bad = got.y.isnan().any(1);
  CHECK(at::equal(bad, at::arange(9).eq(4)));
  const auto back = rms_norm_backward(dy, x, w, got.rstd);
  CHECK(at::equal(back.dx.isnan().any(1), at::arange(9).eq(4)));
}

TEST_CASE("rms_norm of no rows is empty") {
  const at::Tensor x = at::empty({0, 8});
  const auto got = rms_norm(x, at::ones({8}), kEps);
  CHECK(got.y.sizes() == at::IntArrayRef({0, 8}));
  const auto back = rms_norm_backward(
      x, x, at::ones({8}), got.rstd, {.weight_gradient = true});
  CHECK(at::equal(back.dw, at::zeros({8})));
}

TEST_CASE("rms_norm refuses what does not fit") {
  const at::Tensor x = at::ones({3, 8}), w = at::ones({8});
  CHECK_THROWS_AS(rms_norm(x, at::ones({9}), kEps), InternalError);
  CHECK_THROWS_AS(rms_norm(x.t(), at::ones({3}), kEps), InternalError);
  CHECK_THROWS_AS(rms_norm(x, w.to(at::kDouble), kEps), InternalError);
  CHECK_THROWS_AS(
      rms_norm(x.to(at::kHalf), w.to(at::kHalf), kEps), InternalError);
  CHECK_THROWS_AS(
      rms_norm_backward(at::ones({3, 7}), x, w, at::ones({3})), InternalError);
  CHECK_THROWS_AS(rms_norm_backward(x, x, w, at::ones({2})), InternalError);
}

TEST_CASE("rms_norm equals its composition") {
  for (const auto& where : cpu_cases()) check(where);
}

TEST_CASE("rms_norm equals its composition on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) check(where);
}

}  // namespace fettle::kernels
