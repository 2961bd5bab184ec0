// SPDX-License-Identifier: Apache-2.0
#include "kernels/refine.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "device_case.h"
#include "rounded.h"

namespace fettle::kernels {
namespace {

// Of each row, in fp64.
at::Tensor errors_of(const at::Tensor& difference, const at::Tensor& hessian) {
  const at::Tensor d = difference.to(at::kDouble);
  return (at::mm(d, hessian.to(at::kDouble)) * d).sum(1);
}

at::Tensor errors(
    const Quantized& q,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid) {
  return errors_of(w - values(q, grid), hessian);
}

// One column after the other by the definition, in fp64: each code is tried.
at::Tensor descended(
    const Quantized& q,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid) {
  Quantized now{q.codes.clone(), q.scales, q.zeros};
  const std::int64_t levels =
      grid.kind == PackedKind::kTernary ? 3 : std::int64_t{1} << grid.bits;
  for (std::int64_t j = 0; j < w.size(1); ++j) {
    at::Tensor least = errors(now, w, hessian, grid);
    at::Tensor best = now.codes.select(1, j).clone();
    for (std::int64_t code = 0; code < levels; ++code) {
      now.codes.select(1, j).fill_(code);
      const at::Tensor error = errors(now, w, hessian, grid);
      best = at::where(error < least, at::full_like(best, code), best);
      least = at::minimum(least, error);
    }
    now.codes.select(1, j).copy_(best);
  }
  return now.codes;
}

const QuantGrid kGrids[] = {
    {.bits = 2, .symmetric = false, .group = 8},
    {.bits = 3, .group = 16},
    {.kind = PackedKind::kTernary, .group = 12},
    {.kind = PackedKind::kTernary, .group = 64}};

}  // namespace

TEST_CASE("each code moves to where the error is least") {
  for (const QuantGrid& grid : kGrids) {
    CAPTURE(grid.bits, grid.group);
    const at::Tensor w = random(20, 150, 1);
    const at::Tensor hessian = moments(150, 2);
    Quantized q = quantize({w.clone(), {}}, grid);
    const at::Tensor before = q.codes.clone();
    const at::Tensor expected = descended(q, w, hessian, grid);
    descend(q, w, hessian, grid);
    CHECK((expected != before).sum().item<std::int64_t>() > 100);
    // Ties are broken by rounding in fp32.
    CHECK((expected != q.codes).sum().item<std::int64_t>() <= 3);
  }
}

TEST_CASE("scales are fitted to codes by least squares") {
  const at::Tensor w = random(20, 50, 3);
  const at::Tensor hessian = moments(50, 4);
  for (const QuantGrid& grid : kGrids) {
    CAPTURE(grid.bits, grid.group);
    Quantized q = quantize({w.clone(), {}}, grid);
    // |(w - M s) L|² with H = L Lᵀ, a column of M a group, row by row.
    const at::Tensor lower = at::linalg_cholesky(hessian.to(at::kDouble));
    const at::Tensor factors = multiples(q, grid);
    const std::int64_t groups = q.scales.size(1);
    at::Tensor expected = at::empty({20, groups}, at::kDouble);
    for (std::int64_t row = 0; row < 20; ++row) {
      at::Tensor m = at::zeros({groups, 50}, at::kDouble);
      for (std::int64_t c = 0; c < 50; ++c) {
        m[c / grid.group][c] = factors[row][c];
      }
      const at::Tensor solution = std::get<0>(at::linalg_lstsq(
          at::mm(m, lower).t(),
          at::mv(lower.t(), w[row].to(at::kDouble)).unsqueeze(1)));
      expected.select(0, row).copy_(solution.squeeze(1));
    }
    REQUIRE((expected * q.scales > 0).all().item<bool>());
    fit_scales(q, w, hessian, grid);
    CHECK(at::allclose(q.scales.to(at::kDouble), expected, 1.0 / 256, 0));
  }
}

TEST_CASE("refining in turns lowers the error of every row") {
  const at::Tensor w = random(37, 300, 5);
  const at::Tensor hessian = moments(300, 6);
  for (const QuantGrid& grid : kGrids) {
    CAPTURE(grid.bits, grid.group);
    Quantized q = quantize({w.clone(), {}}, grid);
    at::Tensor last = errors(q, w, hessian, grid);
    for (int pass = 0; pass < 3; ++pass) {
      refine(q, w, hessian, grid, 1);
      const at::Tensor now = errors(q, w, hessian, grid);
      CHECK((now <= last * (1 + 1e-5)).all().item<bool>());
      CHECK(now.sum().item<double>() < last.sum().item<double>());
      last = now;
    }
  }
}

TEST_CASE("an entropy weight makes more weights 0") {
  const at::Tensor w = random(64, 200, 7);
  const at::Tensor hessian = moments(200, 8);
  QuantGrid grid{.kind = PackedKind::kTernary, .group = 64};
  const auto zeros_after = [&](double entropy_weight) {
    grid.entropy_weight = entropy_weight;
    Quantized q = quantize({w.clone(), {}}, grid);
    refine(q, w, hessian, grid, 2);
    return at::eq(q.codes, 1).to(at::kDouble).mean().item<double>();
  };
  const double none = zeros_after(0), some = zeros_after(0.3);
  CHECK(some > none + 0.05);
  CHECK(zeros_after(1) > some + 0.05);
}

TEST_CASE("a GPU rounds and refines as the CPU does", "[gpu]") {
  for (const auto& where : test::gpu_cases()) {
    if (where.dtype != at::kFloat) continue;
    for (const QuantGrid& grid : kGrids) {
      CAPTURE(grid.bits, grid.group);
      const at::Tensor w = random(100, 300, 11);
      const at::Tensor hessian = moments(300, 12);
      const at::Tensor inverse = at::linalg_inv(hessian.to(at::kDouble));
      const at::Tensor factor =
          at::linalg_cholesky(inverse).t().to(at::kFloat).contiguous();
      const auto on = [&](at::Device device) {
        const at::Tensor placed = hessian.to(device);
        Quantized q = quantize(
            {w.to(device, at::kFloat, false, /*copy=*/true),
             placed.diagonal().contiguous(),
             factor.to(device)},
            grid);
        refine(q, w.to(device), placed, grid, 2);
        q.codes = q.codes.cpu();
        q.scales = q.scales.cpu();
        if (q.zeros.defined()) q.zeros = q.zeros.cpu();
        return values(q, grid);
      };
      // Sums in another order round some weights the other way.
      const at::Tensor lost = errors_of(w - on(at::kCPU), hessian);
      const at::Tensor there = errors_of(w - on(where.device), hessian);
      CHECK(
          there.sum().item<double>() ==
          Approx(lost.sum().item<double>()).epsilon(0.01));
    }
  }
}

TEST_CASE("refining has edges") {
  const QuantGrid grid{.kind = PackedKind::kTernary, .group = 4};
  SECTION("a row of zeros stays one") {
    const at::Tensor w = at::cat({at::zeros({1, 10}), random(1, 10, 9)});
    Quantized q = quantize({w.clone(), {}}, grid);
    refine(q, w, moments(10, 9), grid, 2);
    CHECK(values(q, grid)[0].abs().max().item<double>() == 0);
  }
  SECTION("rows that are taken apart come out the same") {
    // Of 300 groups, 11 rows have all the numbers that are solved at once.
    const QuantGrid fine{.bits = 2, .symmetric = false, .group = 1};
    const at::Tensor w = random(30, 300, 13);
    const at::Tensor hessian = moments(300, 14);
    Quantized all = quantize({w.clone(), {}}, fine);
    Quantized last{
        all.codes.narrow(0, 25, 5).clone(),
        all.scales.narrow(0, 25, 5).clone(),
        all.zeros.narrow(0, 25, 5).clone()};
    refine(all, w, hessian, fine, 1);
    refine(last, w.narrow(0, 25, 5).contiguous(), hessian, fine, 1);
    CHECK(at::equal(all.codes.narrow(0, 25, 5), last.codes));
  }
  SECTION("no passes change nothing") {
    const at::Tensor w = random(3, 10, 10);
    Quantized q = quantize({w.clone(), {}}, grid);
    const at::Tensor codes = q.codes.clone();
    refine(q, w, moments(10, 10), grid, 0);
    CHECK(at::equal(q.codes, codes));
  }
  SECTION("a matrix without rows") {
    const at::Tensor w = at::zeros({0, 10});
    Quantized q = quantize({w.clone(), {}}, grid);
    refine(q, w, moments(10, 10), grid, 2);
    CHECK(q.codes.size(0) == 0);
  }
}

}  // namespace fettle::kernels
