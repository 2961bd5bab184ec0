// SPDX-License-Identifier: Apache-2.0
#include "kernels/refine.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/dispatch.h"
#include "kernels/gptq_args.h"

namespace fettle::kernels {
namespace {

constexpr Op<GptqBlockArgs> kDescent{
    "descend", cpu::gptq_block, &Launchers::gptq_block};

void check_input(
    const Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian) {
  FETTLE_ASSERT(w.dim() == 2 && w.scalar_type() == at::kFloat);
  FETTLE_ASSERT(w.is_contiguous());
  FETTLE_ASSERT(matches(hessian, {w.size(1), w.size(1)}, w));
  FETTLE_ASSERT(matches_as(quantized.codes, w.sizes(), w, at::kByte));
}

double share_of_zeros(const Quantized& quantized) {
  return at::eq(quantized.codes, 1).to(at::kDouble).mean().item<double>();
}

class Refiner {
 public:
  Refiner(
      Quantized& quantized,
      const at::Tensor& w,
      const at::Tensor& hessian,
      const QuantGrid& grid,
      double zeros)
      : quantized_(quantized),
        w_(w),
        hessian_(hessian),
        grid_(grid),
        share_of_zeros_(zeros),
        rows_(w.size(0)),
        cols_(w.size(1)),
        groups_(quantized.scales.size(1)),
        padding_(groups_ * grid.group - cols_) {
    group_of_ = at::arange(cols_, w.options().dtype(at::kLong))
                    .div(grid.group, "floor");
    scales_ = quantized.scales.to(at::kFloat).contiguous();
    if (quantized.zeros.defined()) {
      zeros_ = quantized.zeros.to(at::kFloat).contiguous();
    } else {
      const bool trits = grid.kind == PackedKind::kTernary;
      const auto middle = trits ? 1 : std::int64_t{1} << (grid.bits - 1);
      zeros_ = at::full_like(scales_, static_cast<double>(middle));
    }
    target_ = at::mm(w, hessian);
  }

  // The error of a row is quadratic in its scales: s A s - 2 b s + const.
  void fit_scales() {
    const at::Tensor codes = multiples();
    at::Tensor a = at::empty(
        {rows_, groups_, groups_}, codes.options().dtype(at::kDouble));
    for (std::int64_t g = 0; g < groups_; ++g) {
      const std::int64_t first = g * grid_.group;
      const std::int64_t width = std::min(grid_.group, cols_ - first);
      const at::Tensor product = at::mm(
          codes.narrow(1, first, width), hessian_.narrow(0, first, width));
      a.select(1, g).copy_(group_sums(product.mul_(codes)));
    }
    const at::Tensor b = group_sums(codes * target_);
    const at::Tensor old = scales_.to(at::kDouble);
    const at::Tensor best = least_squares(a, b);
    // A scale that changed sides, or that no code is multiplied by, stays.
    const at::Tensor fitted =
        at::where(best * old > 0, best, old).to(at::kBFloat16).to(at::kDouble);
    const at::Tensor better = error(a, b, fitted) < error(a, b, old);
    scales_ =
        at::where(better.unsqueeze(1), fitted, old).to(at::kFloat).contiguous();
    quantized_.scales.copy_(scales_);
  }

  void descend() {
    const at::Tensor values = multiples().mul_(spread(scales_));
    at::Tensor slope = at::sub(target_, at::mm(values, hessian_));
    const at::Tensor costs = costs_of_not_0();
    const at::Tensor groups = group_of_.to(at::kInt);
    for (std::int64_t begin = 0; begin < cols_; begin += kGptqColumns) {
      const std::int64_t end = std::min(begin + kGptqColumns, cols_);
      const at::Tensor moves = at::empty({rows_, end - begin}, slope.options());
      dispatch(
          w_.device(),
          kDescent,
          {.grid = grid_args(grid_),
           .descent = true,
           .rows = rows_,
           .cols = end - begin,
           .groups = groups_,
           .fit_group = 0,
           .w = slope.data_ptr<float>() + begin,
           .stride = cols_,
           .factor = hessian_.data_ptr<float>() + begin * (cols_ + 1),
           .importance = nullptr,
           .group_of = groups.data_ptr<std::int32_t>() + begin,
           .scales = scales_.data_ptr<float>(),
           .zeros = zeros_.data_ptr<float>(),
           .thresholds = costs.data_ptr<float>(),
           .codes = quantized_.codes.data_ptr<std::uint8_t>() + begin,
           .errors = moves.data_ptr<float>()});
      if (end == cols_) return;
      const at::Tensor block = hessian_.narrow(0, begin, end - begin);
      slope.narrow(1, end, cols_ - end)
          .addmm_(moves, block.narrow(1, end, cols_ - end), 1, -1);
    }
  }

 private:
  at::Tensor spread(const at::Tensor& of_groups) const {
    return of_groups.index_select(1, group_of_);
  }

  // Codes without zero points: what a scale is multiplied by. [R, C]
  at::Tensor multiples() const {
    return quantized_.codes.to(at::kFloat).sub_(spread(zeros_));
  }

  // [R, C] to [R, groups], in double.
  at::Tensor group_sums(const at::Tensor& x) const {
    return at::constant_pad_nd(x, {0, padding_})
        .view({rows_, groups_, grid_.group})
        .sum(2, false, at::kDouble);
  }

  // Solves positive definite systems; gives zeros where rounding broke that.
  static at::Tensor least_squares(const at::Tensor& a, const at::Tensor& b) {
    at::Tensor regular = a.clone();
    at::Tensor diagonal = regular.diagonal(0, 1, 2);
    diagonal.add_(1e-9 * diagonal.mean(1, true));
    diagonal.masked_fill_(diagonal <= 0, 1.0);
    // Not by LU: MKL's, of many matrices side by side, is unsound
    // (CONTRIBUTING).
    const auto [factor, failed] = at::linalg_cholesky_ex(regular);
    return at::cholesky_solve(b.unsqueeze(2), factor)
        .squeeze(2)
        .masked_fill_(failed.ne(0).unsqueeze(1), 0.0);
  }

  static at::Tensor error(
      const at::Tensor& a, const at::Tensor& b, const at::Tensor& scales) {
    const at::Tensor curved = at::bmm(a, scales.unsqueeze(2)).squeeze(2);
    return (scales * (curved - 2 * b)).sum(1);
  }

  // What a weight costs that isn't 0: its bits beyond those of a 0, at their
  // price (QuantGrid). [R, groups]
  at::Tensor costs_of_not_0() const {
    const bool trits = grid_.kind == PackedKind::kTernary;
    if (!trits || grid_.entropy_weight <= 0) return at::zeros_like(scales_);
    const double share = std::clamp(share_of_zeros_, 1e-6, 1 - 1e-6);
    const double bits = 1 + std::log2(share) - std::log2(1 - share);
    const at::Tensor ones = at::ones({1, cols_}, w_.options());
    const at::Tensor energy =
        group_sums(w_.square().mul_(hessian_.diagonal())) /
        at::constant_pad_nd(ones, {0, padding_})
            .view({1, groups_, grid_.group})
            .sum(2);
    return (energy * (grid_.entropy_weight * std::max(bits, 0.0)))
        .to(at::kFloat)
        .contiguous();
  }

  Quantized& quantized_;
  at::Tensor w_;
  const at::Tensor& hessian_;
  const QuantGrid& grid_;
  double share_of_zeros_;  // of trits, in the whole matrix
  std::int64_t rows_, cols_, groups_, padding_;
  at::Tensor group_of_, scales_, zeros_;
  at::Tensor target_;  // W H
};

// Runs `job` for some rows at a time; all rows' zeros set the price of bits.
void for_rows(
    Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid,
    const std::function<void(Refiner&)>& job) {
  const at::NoGradGuard no_grad;
  check_input(quantized, w, hessian);
  if (w.numel() == 0) return;
  const double zeros = share_of_zeros(quantized);
  const std::int64_t groups = quantized.scales.size(1);
  const std::int64_t most =
      std::max<std::int64_t>(kScaleEquations / (groups * groups), 1);
  for (std::int64_t first = 0; first < w.size(0); first += most) {
    const std::int64_t count = std::min(most, w.size(0) - first);
    const auto rows = [&](const at::Tensor& t) {
      return t.defined() ? t.narrow(0, first, count) : t;
    };
    Quantized some{
        rows(quantized.codes), rows(quantized.scales), rows(quantized.zeros)};
    Refiner refiner(some, rows(w), hessian, grid, zeros);
    job(refiner);
  }
}

}  // namespace

void fit_scales(
    Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid) {
  for_rows(quantized, w, hessian, grid, [](Refiner& r) { r.fit_scales(); });
}

void descend(
    Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid) {
  for_rows(quantized, w, hessian, grid, [](Refiner& r) { r.descend(); });
}

void refine(
    Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid,
    int passes) {
  if (passes == 0) return;
  for_rows(quantized, w, hessian, grid, [&](Refiner& refiner) {
    refiner.fit_scales();
    for (int pass = 0; pass < passes; ++pass) {
      refiner.descend();
      refiner.fit_scales();
    }
  });
}

}  // namespace fettle::kernels
