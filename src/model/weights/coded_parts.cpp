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
    case PartKind::kUnsigned:
      return {kU8};
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

constexpr std::int64_t kMxfp4Block = 32;

}  // namespace

std::optional<CodedMatrix> find_mxfp4(
    const CodedParts& parts, const WantedBlocks& wanted) {
  const std::string blocks = wanted.name + std::string(kBlocksSuffix);
  const std::string scales = wanted.name + std::string(kScalesSuffix);
  if (parts.find(blocks) == nullptr && parts.find(scales) == nullptr) {
    return std::nullopt;
  }
  const io::TensorInfo& found = parts.require(blocks, PartKind::kUnsigned);
  if (wanted.cols % kMxfp4Block != 0) {
    refuse_part(
        found.name,
        fmt::format(
            "holds rows of {} weights by config.json, no whole number of "
            "MXFP4's blocks of {}",
            wanted.cols,
            kMxfp4Block));
  }
  const std::int64_t groups = wanted.cols / kMxfp4Block;
  CodedParts::Shape shape{wanted.all, groups};
  if (wanted.count > 0) shape.insert(shape.begin(), wanted.count);
  CodedMatrix m{.rows = wanted.rows, .cols = wanted.cols};
  m.order = CodeOrder::kNibbles;
  m.level = CodeLevel::kFp4;
  m.bits = 4;
  m.block_cols = kMxfp4Block;
  m.grid_rows = wanted.rows;
  m.grid_cols = groups;
  m.row_step = wanted.step;
  m.blocks = true;
  m.name = "MXFP4";
  const std::int64_t above = wanted.index * wanted.all + wanted.first;
  const std::int64_t span =
      wanted.rows > 0 ? (wanted.rows - 1) * wanted.step + 1 : 0;
  const auto rows_of = [&](const io::TensorInfo& tensor, std::int64_t bytes) {
    return StoredSpan{
        &tensor,
        static_cast<std::uint64_t>(above * bytes),
        static_cast<std::uint64_t>(span * bytes)};
  };
  const StoredSpan all_scales =
      parts.require(scales, PartKind::kUnsigned, shape, "by config.json");
  m.scales = rows_of(*all_scales.tensor, groups);
  shape.push_back(kMxfp4Block / 2);
  require_shape(found, shape, "by config.json");
  m.codes = rows_of(found, wanted.cols / 2);
  return m;
}

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
