// SPDX-License-Identifier: Apache-2.0
// What the tests of rounding share: matrices to round, and the values of codes.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>

#include "kernels/gptq.h"

namespace fettle::kernels {

inline at::Tensor random(std::int64_t rows, std::int64_t cols, int seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn({rows, cols}, generator, at::kFloat);
}

// Correlated inputs, so that there is something to make up for.
inline at::Tensor moments(std::int64_t cols, int seed) {
  const at::Tensor mix =
      at::eye(cols) + 0.5 * random(cols, cols, seed + 1) / std::sqrt(cols);
  const at::Tensor x = at::mm(random(4 * cols, cols, seed), mix);
  return at::mm(x.t(), x);
}

// [R, groups] to [R, C], in fp64.
inline at::Tensor spread(
    const at::Tensor& of_groups, const QuantGrid& grid, std::int64_t cols) {
  return of_groups.to(at::kDouble)
      .index_select(1, at::arange(cols, at::kLong).div(grid.group, "floor"));
}

// What scales are multiplied by: codes without their zero points.
inline at::Tensor multiples(const Quantized& q, const QuantGrid& grid) {
  const double middle = grid.kind == PackedKind::kTernary
                            ? 1.0
                            : std::exp2(static_cast<double>(grid.bits - 1));
  const at::Tensor zeros = q.zeros.defined()
                               ? q.zeros
                               : at::full_like(q.scales, middle, at::kDouble);
  return q.codes.to(at::kDouble) - spread(zeros, grid, q.codes.size(1));
}

// The values that codes and scales stand for, by the definition.
inline at::Tensor values(const Quantized& q, const QuantGrid& grid) {
  return multiples(q, grid) * spread(q.scales, grid, q.codes.size(1));
}

}  // namespace fettle::kernels
