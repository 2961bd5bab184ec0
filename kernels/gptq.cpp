// SPDX-License-Identifier: Apache-2.0
#include "kernels/gptq.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/gptq_args.h"

namespace fettle::kernels {
namespace {

constexpr Op<FitGridArgs> kFitGrid{
    "fit_grid", cpu::fit_grid, &Launchers::fit_grid};
constexpr Op<GptqBlockArgs> kGptqBlock{
    "gptq_block", cpu::gptq_block, &Launchers::gptq_block};
void check_input(const QuantInput& in, const QuantGrid& grid) {
  const at::Tensor& w = in.w;
  FETTLE_ASSERT(w.dim() == 2 && w.is_contiguous());
  FETTLE_ASSERT(w.scalar_type() == at::kFloat && grid.group > 0);
  const std::int64_t cols = w.size(1);
  if (in.importance.defined()) {
    FETTLE_ASSERT(matches(in.importance, {cols}, w));
  }
  if (in.factor.defined()) {
    FETTLE_ASSERT(matches(in.factor, {cols, cols}, w));
  }
  if (in.order.defined()) {
    FETTLE_ASSERT(matches_as(in.order, {cols}, w, at::kLong));
  }
  FETTLE_ASSERT(at::isfinite(w).all().item<bool>());
}

// A matrix on its way: its columns in the order they are rounded in.
class Quantizer {
 public:
  Quantizer(const QuantInput& in, const QuantGrid& grid)
      : grid_(grid),
        w_(in.w),
        factor_(in.factor),
        order_(in.order),
        rows_(in.w.size(0)),
        cols_(in.w.size(1)),
        groups_((cols_ + grid.group - 1) / grid.group) {
    const at::TensorOptions floats = w_.options();
    importance_ =
        in.importance.defined() ? in.importance : at::ones({cols_}, floats);
    scales_ = at::zeros({rows_, groups_}, floats);
    zeros_ = at::zeros({rows_, groups_}, floats);
    thresholds_ = at::zeros({rows_, groups_}, floats);
    codes_ = at::zeros({rows_, cols_}, floats.dtype(at::kByte));
    group_of_ = at::arange(cols_, floats.dtype(at::kLong))
                    .div(grid.group, "floor")
                    .to(at::kInt)
                    .contiguous();
  }

  Quantized run() {
    if (order_.defined()) reorder();
    for (std::int64_t begin = 0; begin < cols_;) {
      const std::int64_t end = block_end(begin);
      block(begin, end);
      begin = end;
    }
    if (order_.defined()) {
      const at::Tensor sorted = codes_;
      codes_ = at::empty_like(sorted);
      codes_.index_copy_(1, order_, sorted);
    }
    Quantized result{codes_, scales_.to(at::kBFloat16), {}};
    if (grid_.kind == PackedKind::kInt && !grid_.symmetric) {
      result.zeros = zeros_.to(at::kByte);
    }
    return result;
  }

 private:
  // A block holds whole groups, or lies in one.
  std::int64_t block_end(std::int64_t begin) const {
    if (order_.defined()) return std::min(begin + kGptqColumns, cols_);
    const std::int64_t group = grid_.group;
    const std::int64_t most =
        group < kGptqColumns
            ? begin + kGptqColumns / group * group
            : std::min(begin + kGptqColumns, (begin / group + 1) * group);
    return std::min(most, cols_);
  }

  // Scales come first, while groups are still neighbours.
  void reorder() {
    for (std::int64_t g = 0; g < groups_; ++g) fit(g);
    w_ = w_.index_select(1, order_);
    importance_ = importance_.index_select(0, order_);
    group_of_ = group_of_.index_select(0, order_);
  }

  void fit(std::int64_t g) {
    const std::int64_t first = g * grid_.group;
    dispatch(
        w_.device(),
        kFitGrid,
        {.grid = grid_args(grid_),
         .rows = rows_,
         .cols = std::min(grid_.group, cols_ - first),
         .groups = groups_,
         .w = w_.data_ptr<float>() + first,
         .w_stride = cols_,
         .importance = importance_.data_ptr<float>() + first,
         .scales = scales_.data_ptr<float>() + g,
         .zeros = zeros_.data_ptr<float>() + g,
         .thresholds = thresholds_.data_ptr<float>() + g});
  }

  void block(std::int64_t begin, std::int64_t end) {
    const bool dynamic = !order_.defined();
    const bool in_block = dynamic && grid_.group <= kGptqColumns;
    if (dynamic && !in_block && begin % grid_.group == 0) {
      fit(begin / grid_.group);
    }
    const std::int64_t width = end - begin;
    at::Tensor errors;
    if (factor_.defined()) errors = at::empty({rows_, width}, w_.options());
    dispatch(
        w_.device(),
        kGptqBlock,
        {.grid = grid_args(grid_),
         .descent = false,
         .rows = rows_,
         .cols = width,
         .groups = groups_,
         .fit_group = in_block ? grid_.group : 0,
         .w = w_.data_ptr<float>() + begin,
         .stride = cols_,
         .factor = factor_.defined()
                       ? factor_.data_ptr<float>() + begin * (cols_ + 1)
                       : nullptr,
         .importance = importance_.data_ptr<float>() + begin,
         .group_of = group_of_.data_ptr<std::int32_t>() + begin,
         .scales = scales_.data_ptr<float>(),
         .zeros = zeros_.data_ptr<float>(),
         .thresholds = thresholds_.data_ptr<float>(),
         .codes = codes_.data_ptr<std::uint8_t>() + begin,
         .errors = errors.defined() ? errors.data_ptr<float>() : nullptr});
    if (!errors.defined() || end == cols_) return;
    at::Tensor rest = w_.narrow(1, end, cols_ - end);
    rest.addmm_(
        errors,
        factor_.narrow(0, begin, width).narrow(1, end, cols_ - end),
        1,
        -1);
  }

  QuantGrid grid_;
  at::Tensor w_, factor_, order_, importance_;
  std::int64_t rows_, cols_, groups_;
  at::Tensor scales_, zeros_, thresholds_, codes_, group_of_;
};

}  // namespace

GridArgs grid_args(const QuantGrid& grid) {
  GridArgs args{
      .ternary = grid.kind == PackedKind::kTernary,
      .symmetric = grid.symmetric,
      .bits = static_cast<int>(grid.bits),
      .entropy_weight = static_cast<float>(grid.entropy_weight),
      .steps = 40,
      .least_share = 0};
  if (args.ternary) return args;
  const auto search = [&](float least_share, int steps) {
    args.least_share = least_share;
    args.steps = steps;
  };
  if (grid.bits <= 2) {
    search(0.25f, 30);
  } else if (grid.bits == 3) {
    search(0.45f, 24);
  } else {
    grid.bits == 4 ? search(0.65f, 16) : search(0.95f, 2);
  }
  return args;
}

Quantized quantize(const QuantInput& input, const QuantGrid& grid) {
  const at::NoGradGuard no_grad;
  check_input(input, grid);
  return Quantizer(input, grid).run();
}

PackedMatrix pack(const Quantized& quantized, const QuantGrid& grid) {
  PackedMatrix m{
      .kind = grid.kind,
      .bits = grid.kind == PackedKind::kInt ? grid.bits : 0,
      .rows = quantized.codes.size(0),
      .cols = quantized.codes.size(1),
      .group = grid.group};
  m.codes = pack_codes(m.kind, m.bits, quantized.codes);
  m.scales = quantized.scales;
  m.zeros = quantized.zeros;
  return m;
}

}  // namespace fettle::kernels
