// SPDX-License-Identifier: Apache-2.0
// Rows are lanes: a tile of as many rows as a vector has lanes lies transposed
// in a buffer, a vector a column, and every step is done for all of them.
#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/gptq_args.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gptq.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/int_grid-inl.h"
#include "kernels/cpu/ternary_grid-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

HWY_INLINE Levels fit(const Group& group, const GridArgs& grid) {
  return grid.ternary ? fit_ternary(group, grid) : fit_int(group, grid);
}

// Values of one column of the tile's rows, `rows` of them, to and from memory.
template <class T>
HWY_INLINE V gather_rows(const T* p, std::int64_t stride, std::int64_t rows) {
  HWY_ALIGN float lanes[hn::MaxLanes(D())] = {};
  for (std::int64_t r = 0; r < rows; ++r) {
    lanes[r] = static_cast<float>(p[r * stride]);
  }
  return hn::Load(D(), lanes);
}

template <class T>
HWY_INLINE void scatter_rows(
    V v, T* p, std::int64_t stride, std::int64_t rows) {
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  hn::Store(v, D(), lanes);
  for (std::int64_t r = 0; r < rows; ++r)
    p[r * stride] = static_cast<T>(lanes[r]);
}

// Rows [row, row + rows) of a matrix of `cols` columns, transposed into `tile`.
template <class T>
void load_tile(
    const T* w,
    std::int64_t stride,
    std::int64_t rows,
    std::int64_t cols,
    float* tile) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  std::fill(tile, tile + cols * lanes, 0.0f);
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* row = w + r * stride;
    for (std::int64_t j = 0; j < cols; ++j) {
      tile[j * lanes + r] = static_cast<float>(row[j]);
    }
  }
}

template <class T>
void store_tile(
    const float* tile,
    std::int64_t stride,
    std::int64_t rows,
    std::int64_t cols,
    T* out) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  for (std::int64_t r = 0; r < rows; ++r) {
    T* row = out + r * stride;
    for (std::int64_t j = 0; j < cols; ++j) {
      row[j] = static_cast<T>(tile[j * lanes + r]);
    }
  }
}

void FitTile(const FitGridArgs& a, std::int64_t row, std::int64_t rows) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  std::vector<float> tile(static_cast<std::size_t>(a.cols * lanes));
  load_tile(a.w + row * a.w_stride, a.w_stride, rows, a.cols, tile.data());
  const Levels levels = fit({tile.data(), a.importance, a.cols}, a.grid);
  float* zeros = a.grid.ternary ? a.thresholds : a.zeros;
  scatter_rows(levels.scale, a.scales + row * a.groups, a.groups, rows);
  scatter_rows(levels.zero, zeros + row * a.groups, a.groups, rows);
}

// A column's codes, and what is passed on to the columns behind.
struct Step {
  V code, passed;
};

// A column of weights is rounded, and its loss made up for behind.
template <class Rounding>
struct GptqStep {
  static HWY_INLINE Step
  take(const Levels& levels, int bits, V w, V, float pivot) {
    const Rounding rounding(levels, bits);
    const V code = rounding.code(w);
    return {code, hn::Mul(hn::Sub(w, rounding.value(code)), all(1.0f / pivot))};
  }
};

// A column's codes go where the error is least while all others stay.
template <class Rounding>
struct DescentStep {
  static HWY_INLINE Step
  take(const Levels& levels, int bits, V slope, V old, float curvature) {
    const Rounding rounding =
        Rounding::at_curvature(levels, bits, all(curvature));
    const V was = rounding.value(old);
    const V best = hn::MulAdd(slope, all(1.0f / curvature), was);
    const auto some = hn::Ne(levels.scale, hn::Zero(D()));
    const V code = hn::IfThenElse(some, rounding.code(best), old);
    return {code, hn::Sub(rounding.value(code), was)};
  }
};

// One tile of a block of columns.
class BlockTile {
 public:
  BlockTile(const GptqBlockArgs& a, std::int64_t row, std::int64_t rows)
      : a_(a),
        row_(row),
        rows_(rows),
        lanes_(static_cast<std::int64_t>(hn::Lanes(D()))),
        tile_(static_cast<std::size_t>(a.cols * lanes_)),
        codes_(tile_.size()) {}

  template <template <class> class StepOf>
  void run() {
    load_tile(a_.w + row_ * a_.stride, a_.stride, rows_, a_.cols, tile_.data());
    const std::uint8_t* old = a_.codes + row_ * a_.stride;
    if (a_.descent) load_tile(old, a_.stride, rows_, a_.cols, codes_.data());
    a_.grid.ternary ? run_steps<StepOf<TernaryRounding>>()
                    : run_steps<StepOf<IntRounding>>();
    store_tile(
        codes_.data(), a_.stride, rows_, a_.cols, a_.codes + row_ * a_.stride);
    if (a_.errors != nullptr) {
      store_tile(
          tile_.data(), a_.cols, rows_, a_.cols, a_.errors + row_ * a_.cols);
    }
  }

 private:
  template <class Stepper>
  void run_steps() {
    Levels levels{hn::Zero(D()), hn::Zero(D())};
    for (std::int64_t begin = 0; begin < a_.cols;) {
      const std::int64_t end = step_end(begin);
      step_columns<Stepper>(begin, end, levels);
      begin = end;
    }
  }

  static constexpr std::int64_t kStep = 8;

  // Where a group is fitted, all columns before it have been passed on.
  std::int64_t step_end(std::int64_t begin) const {
    std::int64_t end = std::min(begin + kStep, a_.cols);
    if (a_.fit_group > 0) {
      end = std::min(end, (begin / a_.fit_group + 1) * a_.fit_group);
    }
    return end;
  }

  float* column(std::int64_t j) { return tile_.data() + j * lanes_; }
  float factor(std::int64_t i, std::int64_t j) const {
    return a_.factor[i * a_.stride + j];
  }

  Levels levels_at(std::int64_t j) {
    const std::int64_t at = row_ * a_.groups + a_.group_of[j];
    float* zeros = a_.grid.ternary ? a_.thresholds : a_.zeros;
    if (a_.fit_group > 0 && j % a_.fit_group == 0) {
      const Levels levels = fit(
          {column(j), a_.importance + j, std::min(a_.fit_group, a_.cols - j)},
          a_.grid);
      scatter_rows(levels.scale, a_.scales + at, a_.groups, rows_);
      scatter_rows(levels.zero, zeros + at, a_.groups, rows_);
      return levels;
    }
    return {
        gather_rows(a_.scales + at, a_.groups, rows_),
        gather_rows(zeros + at, a_.groups, rows_)};
  }

  template <class Stepper>
  void step_columns(std::int64_t begin, std::int64_t end, Levels& levels) {
    const D d;
    V passed[kStep];
    for (std::int64_t j = begin; j < end; ++j) {
      if (j == 0 || a_.group_of[j] != a_.group_of[j - 1]) {
        levels = levels_at(j);
      }
      V w = hn::LoadU(d, column(j));
      if (a_.factor != nullptr) {
        for (std::int64_t i = begin; i < j; ++i) {
          w = hn::NegMulAdd(passed[i - begin], all(factor(i, j)), w);
        }
      }
      float* code = codes_.data() + j * lanes_;
      const float pivot = a_.factor != nullptr ? factor(j, j) : 1.0f;
      const Step step =
          Stepper::take(levels, a_.grid.bits, w, hn::LoadU(d, code), pivot);
      hn::StoreU(step.code, d, code);
      passed[j - begin] = step.passed;
      hn::StoreU(step.passed, d, column(j));
    }
    if (a_.factor != nullptr) pass_on(begin, end, passed);
  }

  void pass_on(std::int64_t begin, std::int64_t end, const V* passed) {
    const D d;
    for (std::int64_t k = end; k < a_.cols; ++k) {
      V w = hn::LoadU(d, column(k));
      for (std::int64_t i = begin; i < end; ++i) {
        w = hn::NegMulAdd(passed[i - begin], all(factor(i, k)), w);
      }
      hn::StoreU(w, d, column(k));
    }
  }

  const GptqBlockArgs& a_;
  std::int64_t row_, rows_, lanes_;
  std::vector<float> tile_, codes_;
};

void BlockRows(const GptqBlockArgs& a, std::int64_t row, std::int64_t rows) {
  BlockTile tile(a, row, rows);
  a.descent ? tile.run<DescentStep>() : tile.run<GptqStep>();
}

std::size_t RowLanes() { return hn::Lanes(D()); }

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(FitTile);
HWY_EXPORT(BlockRows);
HWY_EXPORT(RowLanes);

namespace {

// Calls f(row, rows) on tiles of as many rows as a vector has lanes.
template <class F>
void for_tiles(std::int64_t rows, const F& f) {
  const auto lanes =
      static_cast<std::int64_t>(HWY_DYNAMIC_DISPATCH(RowLanes)());
  cpu::parallel_tasks((rows + lanes - 1) / lanes, [&](std::int64_t tile) {
    const std::int64_t row = tile * lanes;
    f(row, std::min(lanes, rows - row));
  });
}

}  // namespace

void cpu::fit_grid(const FitGridArgs& args) {
  for_tiles(args.rows, [&](auto row, auto rows) {
    HWY_DYNAMIC_DISPATCH(FitTile)(args, row, rows);
  });
}

void cpu::gptq_block(const GptqBlockArgs& args) {
  for_tiles(args.rows, [&](auto row, auto rows) {
    HWY_DYNAMIC_DISPATCH(BlockRows)(args, row, rows);
  });
}

}  // namespace fettle::kernels
#endif
