// SPDX-License-Identifier: Apache-2.0
#include "kernels/packed_mlps.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "kernels/cpu/packed_mlps.h"
#include "kernels/dispatch.h"
#include "kernels/rounded_products.h"
#include "kernels/trit_code.h"

namespace fettle::kernels {
namespace {

template <class T>
class Memory {
 public:
  T* take(std::int64_t count) {
    pieces_.push_back(
        std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count)));
    return pieces_.back().get();
  }

 private:
  std::vector<std::unique_ptr<T[]>> pieces_;
};

// Room for rounded rows.
class RoundedMemory {
 public:
  RoundedRows take(const RoundedShape& shape, std::int64_t n) {
    return {
        shape,
        codes_.take(n * shape.row_codes()),
        scales_.take(n * shape.blocks),
        sums_.take(n * shape.blocks)};
  }

 private:
  Memory<std::int8_t> codes_;
  Memory<float> scales_;
  Memory<std::int32_t> sums_;
};

// The rows of x that MLPs take, as they are and rounded.
class Inputs {
 public:
  explicit Inputs(const at::Tensor& x)
      : x_(x.const_data_ptr<float>()), n_(x.size(0)), cols_(x.size(1)) {}

  // One row stays where it is, several are put side by side.
  const float* plain(std::span<const std::int64_t> tokens) {
    if (tokens.size() == 1) return x_ + tokens[0] * cols_;
    float* to = values_.take(std::ssize(tokens) * cols_);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::copy_n(
          x_ + tokens[i] * cols_,
          cols_,
          to + static_cast<std::int64_t>(i) * cols_);
    }
    return to;
  }
  RoundedRows rounded(
      const RoundedShape& shape, std::span<const std::int64_t> tokens) {
    const RoundedRows& all = all_rounded(shape);
    if (tokens.size() == 1) return all.from(tokens[0]);
    const RoundedRows some = memory_.take(shape, std::ssize(tokens));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const RoundedRows from = all.from(tokens[i]);
      const RoundedRows to = some.from(static_cast<std::int64_t>(i));
      std::copy_n(from.codes, shape.row_codes(), to.codes);
      std::copy_n(from.scales, shape.blocks, to.scales);
      std::copy_n(from.sums, shape.blocks, to.sums);
    }
    return some;
  }

 private:
  const RoundedRows& all_rounded(const RoundedShape& shape) {
    for (const RoundedRows& rows : rounded_) {
      if (rows.shape == shape) return rows;
    }
    rounded_.push_back(memory_.take(shape, n_));
    cpu::round_rows({x_, cols_, n_, rounded_.back()});
    return rounded_.back();
  }

  const float* x_;
  std::int64_t n_, cols_;
  Memory<float> values_;
  RoundedMemory memory_;
  std::deque<RoundedRows> rounded_;  // all rows of x, in each shape
};

struct Products {
  std::vector<PackedProductArgs> plain;
  std::vector<RoundedProductArgs> rounded;

  MixedProducts args() const { return {plain, rounded}; }
};

// Collects what the CPU code does.
class Plan {
 public:
  Plan(const at::Tensor& x, at::Tensor& y, const PackedMlpsOptions& options)
      : options_(options),
        hidden_(x.size(1)),
        inputs_(x),
        y_(y.mutable_data_ptr<float>()) {}

  void add(const PackedMlp& mlp) {
    const std::int64_t n = std::ssize(mlp.tokens);
    float* y = y_ + row_ * hidden_;
    row_ += n;
    if (n == 0) return;
    if (mlp.up == nullptr) {
      std::fill_n(y, n * hidden_, 0.0f);
      return;
    }
    check(mlp);
    const std::int64_t width = mlp.up->rows;
    const std::int64_t above = mlp.gate == nullptr ? 0 : width;
    float* gate_up = values_.take(n * (above + width));
    float* h = values_.take(n * width);
    if (mlp.gate != nullptr)
      add_in(*mlp.gate, mlp.tokens, gate_up, above + width);
    add_in(*mlp.up, mlp.tokens, gate_up + above, above + width);
    MlpRowsArgs rows{
        .activation =
            {.dtype = DType::kFloat32,
             .activation = options_.activation,
             .rows = n,
             .width = width,
             .gate_up = gate_up,
             .h = h},
        .rounding = {}};
    const PackedArgs down = packed_args(*mlp.down);
    if (rounds(*mlp.down)) {
      rows.rounding = {h, width, n, memory_.take(rounded_shape(down), n)};
      out_.rounded.push_back({down, rows.rounding.rows, n, y, hidden_});
    } else {
      out_.plain.push_back({down, n, h, y, width, hidden_});
    }
    between_.push_back(rows);
  }

  bool run() const {
    return cpu::packed_mlps({in_.args(), between_, out_.args()});
  }

 private:
  void check(const PackedMlp& mlp) const {
    FETTLE_ASSERT(mlp.down != nullptr);
    FETTLE_ASSERT(
        (mlp.gate != nullptr) == (inputs_of(options_.activation) == 2));
    for (const PackedMatrix* in : {mlp.gate, mlp.up}) {
      if (in == nullptr) continue;
      FETTLE_ASSERT(in->rows == mlp.up->rows && in->cols == hidden_);
    }
    FETTLE_ASSERT(mlp.down->rows == hidden_ && mlp.down->cols == mlp.up->rows);
  }

  bool rounds(const PackedMatrix& m) const {
    return options_.rounds && rounded_block(m.group, m.cols) > 0;
  }

  void add_in(
      const PackedMatrix& matrix,
      std::span<const std::int64_t> tokens,
      float* y,
      std::int64_t y_stride) {
    const PackedArgs m = packed_args(matrix);
    const std::int64_t n = std::ssize(tokens);
    if (rounds(matrix)) {
      in_.rounded.push_back(
          {m, inputs_.rounded(rounded_shape(m), tokens), n, y, y_stride});
    } else {
      in_.plain.push_back({m, n, inputs_.plain(tokens), y, hidden_, y_stride});
    }
  }

  const PackedMlpsOptions& options_;
  std::int64_t hidden_;
  Inputs inputs_;
  float* y_;
  std::int64_t row_ = 0;
  Memory<float> values_;
  RoundedMemory memory_;
  Products in_, out_;
  std::vector<MlpRowsArgs> between_;
};

// Throws what is wrong with coded rows.
void find_damage(std::span<const PackedMlp> mlps) {
  for (const PackedMlp& mlp : mlps) {
    for (const PackedMatrix* m : {mlp.gate, mlp.up, mlp.down}) {
      if (m != nullptr && m->row_begin.defined()) {
        check_trit_rows(*m, 0, m->rows);
      }
    }
  }
}

}  // namespace

at::Tensor packed_mlps(
    const at::Tensor& x,
    std::span<const PackedMlp> mlps,
    const PackedMlpsOptions& options) {
  FETTLE_ASSERT(x.dim() == 2 && x.is_cpu() && x.is_contiguous());
  FETTLE_ASSERT(x.scalar_type() == at::kFloat);
  std::int64_t rows = 0;
  for (const PackedMlp& mlp : mlps) {
    rows += std::ssize(mlp.tokens);
    for (const std::int64_t token : mlp.tokens) {
      FETTLE_ASSERT(token >= 0 && token < x.size(0));
    }
  }
  at::Tensor y = at::empty({rows, x.size(1)}, x.options());
  Plan plan(x, y, options);
  for (const PackedMlp& mlp : mlps) plan.add(mlp);
  const bool sound = plan.run();
  if (!sound) find_damage(mlps);
  FETTLE_ASSERT(sound);
  return y;
}

}  // namespace fettle::kernels
