// SPDX-License-Identifier: Apache-2.0
#include "kernels/rounded_products.h"

#include <memory>
#include <vector>

#include "kernels/cpu/rounded.h"
#include "kernels/dispatch.h"
#include "kernels/trit_code.h"

namespace fettle::kernels {
namespace {

// Rows of x as one matrix's shape wants them; products that want the same
// share them.
class RoundedInput {
 public:
  RoundedInput(const at::Tensor& x, const RoundedShape& shape)
      : x_(x),
        codes_(memory<std::int8_t>(x.size(0) * shape.row_codes())),
        scales_(memory<float>(x.size(0) * shape.blocks)),
        sums_(memory<std::int32_t>(x.size(0) * shape.blocks)),
        rows_{shape, codes_.get(), scales_.get(), sums_.get()} {
    cpu::round_rows({x.const_data_ptr<float>(), x.stride(0), x.size(0), rows_});
  }

  const RoundedRows& rows() const { return rows_; }
  bool serves(const at::Tensor& x, const RoundedShape& shape) const {
    return x.const_data_ptr() == x_.const_data_ptr() &&
           x.sizes() == x_.sizes() && x.strides() == x_.strides() &&
           shape == rows_.shape;
  }

 private:
  template <class T>
  static std::unique_ptr<T[]> memory(std::int64_t count) {
    return std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count));
  }

  at::Tensor x_;
  std::unique_ptr<std::int8_t[]> codes_;
  std::unique_ptr<float[]> scales_;
  std::unique_ptr<std::int32_t[]> sums_;
  RoundedRows rows_;
};

}  // namespace

bool has_rounded_product(const PackedMatrix& matrix, const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat &&
         rounded_block(matrix.group, matrix.cols) > 0;
}

void rounded_products(std::span<const PackedProduct> products) {
  std::vector<RoundedInput> inputs;
  std::vector<RoundedProductArgs> all;
  for (const PackedProduct& p : products) {
    FETTLE_ASSERT(p.matrix != nullptr && has_rounded_product(*p.matrix, p.x));
    const std::int64_t n = p.x.size(0);
    FETTLE_ASSERT(is_matrix(p.x, n, p.matrix->cols));
    FETTLE_ASSERT(is_matrix(p.y, n, p.matrix->rows));
    FETTLE_ASSERT(p.y.is_cpu() && p.y.scalar_type() == at::kFloat);
    const PackedArgs matrix = packed_args(*p.matrix);
    const RoundedShape shape = rounded_shape(matrix);
    if (inputs.empty() || !inputs.back().serves(p.x, shape)) {
      inputs.emplace_back(p.x, shape);
    }
    all.push_back(
        {.matrix = matrix,
         .x = inputs.back().rows(),
         .n = n,
         .y = p.y.data_ptr<float>(),
         .y_stride = p.y.stride(0)});
  }
  const bool sound =
      cpu::rounded_products(all.data(), static_cast<std::int64_t>(all.size()));
  for (const PackedProduct& p : products) {
    if (sound || !p.matrix->row_begin.defined()) continue;
    check_trit_rows(*p.matrix, 0, p.matrix->rows);
  }
  FETTLE_ASSERT(sound);
}

}  // namespace fettle::kernels
