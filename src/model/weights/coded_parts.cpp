// SPDX-License-Identifier: Apache-2.0
#include "model/weights/coded_parts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "core/error.h"

namespace fettle::model {
namespace {

std::vector<io::DType> types_of(PartKind kind) {
  using enum io::DType;
  switch (kind) {
    case PartKind::kScales:
      return {kF32, kBF16, kF16};
    case PartKind::kBlockScales:
      return {kF32, kBF16, kF16, kF8E8M0, kU8};
    case PartKind::kWords:
      return {kI32};
    case PartKind::kBytes:
      return {kI8};
  }
  throw InternalError("a part of no known kind");
}

void require_type(const io::TensorInfo& tensor, PartKind kind) {
  const std::vector<io::DType> known = types_of(kind);
  if (std::ranges::find(known, tensor.dtype) != known.end()) return;
  std::vector<std::string_view> names;
  for (const io::DType type : known) names.push_back(io::name_of(type));
  refuse_part(
      tensor.name,
      fmt::format(
          "is stored as {}, expected {}",
          io::name_of(tensor.dtype),
          fmt::join(names, ", ")));
}

// Sides of a block, all of the matrix where the scheme names none.
std::int64_t side_of(std::int64_t block, std::int64_t all) {
  return block > 0 ? block : std::max<std::int64_t>(all, 1);
}

}  // namespace

void refuse_part(const std::string& name, const std::string& message) {
  throw UserError("weights", name, message);
}

void require_shape(
    const io::TensorInfo& tensor,
    const CodedParts::Shape& shape,
    const std::string& why) {
  if (tensor.shape == shape) return;
  refuse_part(
      tensor.name,
      fmt::format(
          "expected shape [{}] {}, found [{}]",
          fmt::join(shape, ", "),
          why,
          fmt::join(tensor.shape, ", ")));
}

StoredSpan whole(const io::TensorInfo& tensor) {
  return {&tensor, 0, tensor.bytes()};
}

std::int64_t blocks_in(std::int64_t side, std::int64_t block) {
  return side / block + (side % block != 0 ? 1 : 0);
}

const io::TensorInfo& CodedParts::require(
    const std::string& name, PartKind kind) const {
  const io::TensorInfo* const found = lookup_(name);
  if (found == nullptr) refuse_part(name, checkpoint_.why_missing(name));
  require_type(*found, kind);
  return *found;
}

StoredSpan CodedParts::require(
    const std::string& name,
    PartKind kind,
    const Shape& shape,
    const std::string& why) const {
  const io::TensorInfo& found = require(name, kind);
  require_shape(found, shape, why);
  return whole(found);
}

void set_grid(
    const io::TensorInfo& scales,
    const std::vector<CodeScheme>& schemes,
    CodedMatrix& m) {
  for (const CodeScheme& scheme : schemes) {
    const std::int64_t rows = side_of(scheme.block_rows, m.rows);
    const std::int64_t cols = side_of(scheme.block_cols, m.cols);
    const CodedParts::Shape grid{
        blocks_in(m.rows, rows), blocks_in(m.cols, cols)};
    const bool one =
        scheme.block_rows == 0 && scheme.block_cols == 0 &&
        (scales.shape.empty() || scales.shape == CodedParts::Shape{1});
    if (!one && scales.shape != grid) continue;
    m.block_rows = rows;
    m.block_cols = cols;
    m.grid_rows = grid[0];
    m.grid_cols = grid[1];
    m.scales = whole(scales);
    return;
  }
  std::vector<std::string> known;
  for (const CodeScheme& scheme : schemes) {
    known.push_back(fmt::format(
        "{} x {}",
        side_of(scheme.block_rows, m.rows),
        side_of(scheme.block_cols, m.cols)));
  }
  refuse_part(
      scales.name,
      fmt::format(
          "has shape [{}], which does not fit weights of [{}, {}] in blocks of "
          "{}, as 'quantization_config' of config.json has them",
          fmt::join(scales.shape, ", "),
          m.rows,
          m.cols,
          fmt::join(known, " or ")));
}

}  // namespace fettle::model
