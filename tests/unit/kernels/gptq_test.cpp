// SPDX-License-Identifier: Apache-2.0
#include "kernels/gptq.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "rounded.h"

namespace fettle::kernels {
namespace {

// Column by column as the paper's equations say, with the whole inverse
// Hessian of the columns left, in fp64. `scales` and `zeros` are given.
at::Tensor obq_reference(
    const at::Tensor& w,
    const at::Tensor& hessian,
    const Quantized& grid_of,
    const QuantGrid& grid) {
  at::Tensor rest = w.to(at::kDouble).clone();
  at::Tensor codes = at::zeros_like(rest);
  const std::int64_t cols = w.size(1);
  const double middle = std::exp2(static_cast<double>(grid.bits - 1));
  const double top = std::exp2(static_cast<double>(grid.bits)) - 1;
  for (std::int64_t j = 0; j < cols; ++j) {
    // The inverse of what is left of H.
    const at::Tensor inverse = at::linalg_inv(
        hessian.to(at::kDouble).narrow(0, j, cols - j).narrow(1, j, cols - j));
    const std::int64_t g = j / grid.group;
    const at::Tensor scale = grid_of.scales.to(at::kDouble).select(1, g);
    const at::Tensor zero = grid_of.zeros.defined()
                                ? grid_of.zeros.to(at::kDouble).select(1, g)
                                : at::full({w.size(0)}, middle, at::kDouble);
    const at::Tensor column = rest.select(1, j);
    const at::Tensor code = (at::round(column / scale) + zero).clamp(0, top);
    codes.select(1, j).copy_(code);
    const at::Tensor error = (column - (code - zero) * scale) / inverse[0][0];
    at::Tensor behind = rest.narrow(1, j, cols - j);
    behind.sub_(at::outer(error, inverse[0]));
  }
  return codes.to(at::kByte);
}

at::Tensor factor_of(const at::Tensor& hessian) {
  return at::linalg_cholesky(at::linalg_inv(hessian.to(at::kDouble)))
      .t()
      .to(at::kFloat)
      .contiguous();
}

double output_error(
    const at::Tensor& w, const at::Tensor& q, const at::Tensor& hessian) {
  const at::Tensor d = q - w.to(at::kDouble);
  return (at::mm(d, hessian.to(at::kDouble)) * d).sum().item<double>();
}

}  // namespace

TEST_CASE("gptq takes the steps of its equations") {
  const auto bits = GENERATE(2, 3, 4, 8);
  const auto group = GENERATE(8, 20, 48);
  const bool symmetric = GENERATE(true, false);
  const QuantGrid grid{PackedKind::kInt, bits, symmetric, group, 0};
  const at::Tensor w = random(5, 48, 3);
  const at::Tensor hessian = moments(48, 7);
  const Quantized found = quantize(
      {w.clone(), hessian.diagonal().contiguous(), factor_of(hessian)}, grid);
  const at::Tensor expected = obq_reference(w, hessian, found, grid);
  // A value in the middle between two levels may fall either way.
  const auto differing = found.codes.ne(expected).sum().item<std::int64_t>();
  CHECK(differing <= 2);
}

TEST_CASE("gptq passes on errors across blocks, and in any order") {
  const auto group = GENERATE(32, 128, 160, 300);
  const bool ordered = GENERATE(false, true);
  const QuantGrid grid{PackedKind::kInt, 3, true, group, 0};
  const std::int64_t cols = 300;
  const at::Tensor w = random(33, cols, 5);
  const at::Tensor hessian = moments(cols, 9);
  const at::Tensor diagonal = hessian.diagonal().contiguous();
  QuantInput input{w.clone(), diagonal, factor_of(hessian)};
  if (ordered) {
    input.order = diagonal.argsort(0, true);
    input.factor = factor_of(
        hessian.index_select(0, input.order).index_select(1, input.order));
  }
  const Quantized found = quantize(input, grid);
  const Quantized nearest = quantize({w.clone(), diagonal}, grid);
  const double error = output_error(w, values(found, grid), hessian);
  const double rounded = output_error(w, values(nearest, grid), hessian);
  CHECK(error < 0.8 * rounded);
  // What GPTQ gives up is what its own loss says (eq. 1 of the paper): no other
  // reference is near at this size.
  CHECK(error > 0);
}

TEST_CASE("rounding to nearest is to the nearest level") {
  const auto bits = GENERATE(2, 3, 4, 8);
  const bool symmetric = GENERATE(true, false);
  const QuantGrid grid{PackedKind::kInt, bits, symmetric, 40, 0};
  const at::Tensor w = random(19, 100, 11);
  const Quantized found = quantize({w.clone(), {}}, grid);
  const at::Tensor q = values(found, grid);
  const double top = std::exp2(bits) - 1;
  for (std::int64_t r = 0; r < w.size(0); ++r) {
    for (std::int64_t c = 0; c < w.size(1); ++c) {
      const double scale =
          found.scales[r][c / 40].to(at::kDouble).item<double>();
      const double zero = found.zeros.defined()
                              ? found.zeros[r][c / 40].item<double>()
                              : std::exp2(bits - 1);
      double least = 1e30;
      for (double level = 0; level <= top; ++level) {
        least = std::min(
            least, std::abs((level - zero) * scale - w[r][c].item<double>()));
      }
      const double error =
          std::abs(q[r][c].item<double>() - w[r][c].item<double>());
      REQUIRE(error <= least + 1e-6);
    }
  }
}

TEST_CASE("scales lose no more than the range's, and heed importance") {
  const auto bits = GENERATE(2, 3, 4, 8);
  const QuantGrid grid{PackedKind::kInt, bits, true, 64, 0};
  const at::Tensor w = random(16, 64, 13);
  const at::Tensor importance = random(1, 64, 15).square().squeeze(0);
  const auto loss = [&](const at::Tensor& q) {
    return ((q - w.to(at::kDouble)).square() * importance).sum().item<double>();
  };
  const double found =
      loss(values(quantize({w.clone(), importance}, grid), grid));
  const double plain = loss(values(quantize({w.clone(), {}}, grid), grid));
  const double half = std::exp2(bits - 1);
  const at::Tensor largest =
      std::get<0>(w.abs().max(1, true)).to(at::kDouble) / (half - 0.5);
  const double range =
      loss(at::round(w / largest).clamp(-half, half - 1) * largest);
  CHECK(found <= range * 1.02);
  CHECK(found <= plain * 1.001);
}

TEST_CASE("ternary levels are the centroids of what passes a threshold") {
  const QuantGrid grid{PackedKind::kTernary, 0, true, 256, 0};
  const at::Tensor w = random(8, 512, 17);
  const Quantized found = quantize({w.clone(), {}}, grid);
  const at::Tensor q = values(found, grid);
  // The best ternary of a Gaussian (Lloyd-Max, 3 levels) leaves .190 of it.
  const double left =
      (q - w).square().sum().item<double>() / w.square().sum().item<double>();
  CHECK(left == Approx(0.19).margin(0.01));
  // A price on bits makes zeros more frequent.
  QuantGrid priced = grid;
  priced.entropy_weight = 0.5;
  const Quantized fewer = quantize({w.clone(), {}}, priced);
  const auto zeros = [](const Quantized& quantized) {
    return quantized.codes.eq(1).to(at::kDouble).mean().item<double>();
  };
  CHECK(zeros(fewer) > zeros(found) + 0.2);
}

TEST_CASE("quantizing has edges") {
  const QuantGrid grid{PackedKind::kInt, 4, true, 128, 0};
  SECTION("no rows, no columns") {
    CHECK(
        quantize({at::empty({0, 7}), {}}, grid).codes.sizes() ==
        at::IntArrayRef({0, 7}));
    CHECK(quantize({at::empty({3, 0}), {}}, grid).scales.numel() == 0);
  }
  SECTION("zeros stay zeros") {
    const Quantized q = quantize({at::zeros({3, 40}), {}}, grid);
    CHECK(values(q, grid).eq(0).all().item<bool>());
  }
  SECTION("what is not finite is our mistake") {
    at::Tensor w = at::ones({2, 8});
    w[1][3] = std::nan("");
    CHECK_THROWS_AS(quantize({w, {}}, grid), InternalError);
  }
  SECTION("the number of threads changes nothing") {
    const at::Tensor w = random(70, 260, 19);
    const at::Tensor hessian = moments(260, 21);
    const auto run = [&] {
      return quantize(
          {w.clone(), hessian.diagonal().contiguous(), factor_of(hessian)},
          grid);
    };
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const Quantized one = run();
    at::set_num_threads(2);
    const Quantized two = run();
    at::set_num_threads(threads);
    CHECK(one.codes.equal(two.codes));
    CHECK(one.scales.equal(two.scales));
  }
}

}  // namespace fettle::kernels
