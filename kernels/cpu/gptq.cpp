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

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// What a group's weights are rounded with: of kInt scale and zero, of ternary
// scale and threshold (in `zero`).
struct Levels {
  V scale, zero;
};

HWY_INLINE V all(float v) { return hn::Set(D(), v); }

HWY_INLINE V reciprocal(V v) {
  const auto some = hn::Ne(v, hn::Zero(D()));
  return hn::IfThenElseZero(
      some, hn::Div(all(1.0f), hn::IfThenElse(some, v, all(1.0f))));
}

// The code of a weight, as a float, and its value.
struct IntRounding {
  V scale, inverse, zero, top;

  IntRounding(const Levels& levels, int bits)
      : scale(levels.scale),
        inverse(reciprocal(levels.scale)),
        zero(levels.zero),
        top(all(static_cast<float>((1 << bits) - 1))) {}

  HWY_INLINE V code(V w) const {
    const V q = hn::Add(hn::Round(hn::Mul(w, inverse)), zero);
    return hn::Min(hn::Max(q, hn::Zero(D())), top);
  }
  HWY_INLINE V value(V code) const {
    return hn::Mul(hn::Sub(code, zero), scale);
  }
};

struct TernaryRounding {
  V scale, threshold;

  TernaryRounding(const Levels& levels, int)
      : scale(levels.scale), threshold(levels.zero) {}

  HWY_INLINE V code(V w) const {
    const V one = all(1.0f);
    const V size = hn::IfThenElseZero(hn::Gt(hn::Abs(w), threshold), one);
    return hn::Add(hn::CopySign(size, w), one);
  }
  HWY_INLINE V value(V code) const {
    return hn::Mul(hn::Sub(code, all(1.0f)), scale);
  }
};

// A group's weights, transposed: column j of the tile's rows at w[j lanes].
struct Group {
  const float* w;
  const float* importance;
  std::int64_t cols;

  HWY_INLINE V at(std::int64_t j) const {
    return hn::LoadU(D(), w + j * static_cast<std::int64_t>(hn::Lanes(D())));
  }
};

HWY_INLINE V rounding_error(const Group& g, const Levels& levels, int bits) {
  const IntRounding rounding(levels, bits);
  V sum = hn::Zero(D());
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const V w = g.at(j);
    const V d = hn::Sub(w, rounding.value(rounding.code(w)));
    sum = hn::MulAdd(hn::Mul(d, d), all(g.importance[j]), sum);
  }
  return sum;
}

// The scale that fits the codes best once they are chosen.
HWY_INLINE V refined_scale(const Group& g, const Levels& levels, int bits) {
  const IntRounding rounding(levels, bits);
  V top = hn::Zero(D());
  V bottom = hn::Zero(D());
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const V w = g.at(j);
    const V level = hn::Sub(rounding.code(w), rounding.zero);
    const V weighted = hn::Mul(level, all(g.importance[j]));
    top = hn::MulAdd(weighted, w, top);
    bottom = hn::MulAdd(weighted, level, bottom);
  }
  const auto some = hn::Gt(bottom, hn::Zero(D()));
  const V ratio = hn::Div(top, hn::IfThenElse(some, bottom, all(1.0f)));
  return rounded_to<Bf16>(hn::IfThenElse(some, ratio, levels.scale));
}

// How far below the range of the weights scales are looked for.
struct Search {
  float least;
  int steps;
};

HWY_INLINE Search search_of(int bits) {
  if (bits <= 2) return {0.25f, 30};
  if (bits == 3) return {0.45f, 24};
  return bits == 4 ? Search{0.65f, 16} : Search{0.95f, 2};
}

Levels fit_int(const Group& g, const GridArgs& grid) {
  const D d;
  V low = hn::Zero(d);
  V high = hn::Zero(d);
  for (std::int64_t j = 0; j < g.cols; ++j) {
    low = hn::Min(low, g.at(j));
    high = hn::Max(high, g.at(j));
  }
  const float top = static_cast<float>((1 << grid.bits) - 1);
  const float half = static_cast<float>(1 << (grid.bits - 1));
  const V largest = hn::Max(hn::Neg(low), high);
  Levels best{hn::Zero(d), all(half)};
  V least = all(std::numeric_limits<float>::infinity());
  const auto consider = [&](const Levels& levels) HWY_ATTR {
    const V error = rounding_error(g, levels, grid.bits);
    const auto better = hn::Lt(error, least);
    least = hn::IfThenElse(better, error, least);
    best.scale = hn::IfThenElse(better, levels.scale, best.scale);
    best.zero = hn::IfThenElse(better, levels.zero, best.zero);
  };
  const Search search = search_of(grid.bits);
  for (int i = 0; i < search.steps; ++i) {
    const float share =
        1.0f - (1.0f - search.least) * static_cast<float>(i) /
                   static_cast<float>(std::max(search.steps - 1, 1));
    if (grid.symmetric) {
      const V scale =
          rounded_to<Bf16>(hn::Mul(largest, all(share / (half - 0.5f))));
      consider({scale, all(half)});
      // The odd level is below zero; few levels gain by its being above.
      if (grid.bits <= 3) consider({hn::Neg(scale), all(half)});
    } else {
      const V scale =
          rounded_to<Bf16>(hn::Mul(hn::Sub(high, low), all(share / top)));
      const V zero = hn::Round(
          hn::Mul(hn::Neg(hn::Mul(low, all(share))), reciprocal(scale)));
      consider({scale, hn::Min(hn::Max(zero, hn::Zero(d)), all(top))});
    }
  }
  for (int i = 0; i < 2; ++i) {
    consider({refined_scale(g, best, grid.bits), best.zero});
  }
  return best;
}

HWY_INLINE V plogp(V p) {
  const auto some = hn::Gt(p, hn::Zero(D()));
  const V log = hn::Log(D(), hn::IfThenElse(some, p, all(1.0f)));
  return hn::Mul(hn::Mul(p, log), all(1.4426950408889634f));
}

// Entropy-constrained: relative error plus entropy_weight x bits is least.
// Where bits count, a low threshold is left aside: rows with hardly a zero cost
// few bits too, but not by the code that they share with rows of many.
Levels fit_ternary(const Group& g, const GridArgs& grid) {
  constexpr int kSteps = 40;
  constexpr float kFarthest = 3.0f;  // in root mean squares
  const float nearest = grid.entropy_weight > 0 ? 0.5f : 0.0f;
  const D d;
  V square = hn::Zero(d);
  float weight = 0;
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const V w = g.at(j);
    square = hn::MulAdd(hn::Mul(w, w), all(g.importance[j]), square);
    weight += g.importance[j];
  }
  const V rms = hn::Sqrt(hn::Div(square, all(std::max(weight, 1e-30f))));
  const V relative = reciprocal(square);
  Levels best{hn::Zero(d), hn::Zero(d)};
  V least = all(std::numeric_limits<float>::infinity());
  for (int i = 0; i < kSteps; ++i) {
    const float share = static_cast<float>(i) / kSteps;
    const V threshold =
        hn::Mul(rms, all(nearest + (kFarthest - nearest) * share));
    V size = hn::Zero(d), mass = hn::Zero(d), count = hn::Zero(d);
    for (std::int64_t j = 0; j < g.cols; ++j) {
      const V w = hn::Abs(g.at(j));
      const auto kept = hn::Gt(w, threshold);
      const V h = hn::IfThenElseZero(kept, all(g.importance[j]));
      size = hn::MulAdd(h, w, size);
      mass = hn::Add(mass, h);
      count = hn::Add(count, hn::IfThenElseZero(kept, all(1.0f)));
    }
    const V scale = rounded_to<Bf16>(hn::Mul(size, reciprocal(mass)));
    const V gained =
        hn::Mul(scale, hn::NegMulAdd(scale, mass, hn::Add(size, size)));
    const V error = hn::Mul(hn::Sub(square, gained), relative);
    const V p = hn::Mul(count, all(1.0f / static_cast<float>(g.cols)));
    const V bits = hn::Sub(p, hn::Add(plogp(p), plogp(hn::Sub(all(1.0f), p))));
    const V cost = hn::MulAdd(bits, all(grid.entropy_weight), error);
    const auto better = hn::Lt(cost, least);
    least = hn::IfThenElse(better, cost, least);
    best.scale = hn::IfThenElse(better, scale, best.scale);
    best.zero = hn::IfThenElse(better, threshold, best.zero);
  }
  return best;
}

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
void load_tile(
    const float* w,
    std::int64_t stride,
    std::int64_t rows,
    std::int64_t cols,
    float* tile) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  std::fill(tile, tile + cols * lanes, 0.0f);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = w + r * stride;
    for (std::int64_t j = 0; j < cols; ++j) tile[j * lanes + r] = row[j];
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

  template <class Rounding>
  void run() {
    load_tile(a_.w + row_ * a_.stride, a_.stride, rows_, a_.cols, tile_.data());
    Levels levels{hn::Zero(D()), hn::Zero(D())};
    for (std::int64_t begin = 0; begin < a_.cols;) {
      const std::int64_t end = step_end(begin);
      round_columns<Rounding>(begin, end, levels);
      begin = end;
    }
    store_tile(
        codes_.data(), a_.stride, rows_, a_.cols, a_.codes + row_ * a_.stride);
    if (a_.errors != nullptr) {
      store_tile(
          tile_.data(), a_.cols, rows_, a_.cols, a_.errors + row_ * a_.cols);
    }
  }

 private:
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

  template <class Rounding>
  void round_columns(std::int64_t begin, std::int64_t end, Levels& levels) {
    const D d;
    V errors[kStep];
    for (std::int64_t j = begin; j < end; ++j) {
      if (j == 0 || a_.group_of[j] != a_.group_of[j - 1]) {
        levels = levels_at(j);
      }
      const Rounding rounding(levels, a_.grid.bits);
      V w = hn::LoadU(d, column(j));
      if (a_.factor != nullptr) {
        for (std::int64_t i = begin; i < j; ++i) {
          w = hn::NegMulAdd(errors[i - begin], all(factor(i, j)), w);
        }
      }
      const V code = rounding.code(w);
      hn::StoreU(code, d, codes_.data() + j * lanes_);
      if (a_.factor == nullptr) continue;
      errors[j - begin] =
          hn::Mul(hn::Sub(w, rounding.value(code)), all(1.0f / factor(j, j)));
      hn::StoreU(errors[j - begin], d, column(j));
    }
    if (a_.factor != nullptr) pass_on(begin, end, errors);
  }

  void pass_on(std::int64_t begin, std::int64_t end, const V* errors) {
    const D d;
    for (std::int64_t k = end; k < a_.cols; ++k) {
      V w = hn::LoadU(d, column(k));
      for (std::int64_t i = begin; i < end; ++i) {
        w = hn::NegMulAdd(errors[i - begin], all(factor(i, k)), w);
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
  a.grid.ternary ? tile.run<TernaryRounding>() : tile.run<IntRounding>();
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
