// SPDX-License-Identifier: Apache-2.0
// Large weights a few rows at a time, so that what is done to them takes little
// memory beside them.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace fettle::tune {

// Values of a piece, unless a single row has more.
inline constexpr std::int64_t kPieceValues = std::int64_t{1} << 20;

struct RowPiece {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

// Rows of a piece of a weight of `shape`; a vector's rows are its values.
inline std::int64_t piece_rows(std::span<const std::int64_t> shape) {
  std::int64_t width = 1;
  for (const std::int64_t side : shape.subspan(1)) width *= side;
  return std::max<std::int64_t>(
      1, kPieceValues / std::max<std::int64_t>(1, width));
}

inline std::vector<RowPiece> row_pieces(std::span<const std::int64_t> shape) {
  const std::int64_t rows = piece_rows(shape);
  std::vector<RowPiece> pieces;
  for (std::int64_t first = 0; first < shape[0]; first += rows) {
    pieces.push_back({first, std::min(rows, shape[0] - first)});
  }
  return pieces;
}

// The pieces of a tensor whose rows lie along `dim`. They are larger on a card,
// where each piece costs a launch.
inline std::vector<RowPiece> row_pieces(
    const at::Tensor& tensor, std::int64_t dim) {
  if (tensor.numel() == 0) return {};
  const std::int64_t rows = tensor.size(dim);
  const std::int64_t width = tensor.numel() / rows;
  return row_pieces({{rows, tensor.is_cpu() ? width : (width + 7) / 8}});
}

}  // namespace fettle::tune
