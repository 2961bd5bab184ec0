// SPDX-License-Identifier: Apache-2.0
#include "model/weights/coded_finder.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "core/error.h"

namespace fettle::model {
namespace {

const std::string kBlockScale(kBlockScaleSuffix);
constexpr const char* kScale = "_scale";

bool is_fp8(const io::TensorInfo& tensor) {
  return tensor.dtype == io::DType::kF8E4M3;
}

std::string block_name(const CodedMatrix& m) {
  return fmt::format("fp8 in blocks of {} x {}", m.block_rows, m.block_cols);
}

}  // namespace

CodedFinder::Found CodedFinder::finish(CodedMatrix matrix) const {
  matrix.type = type_;
  Found found;
  for (const StoredSpan& span :
       {matrix.codes, matrix.scales, matrix.zeros, matrix.groups}) {
    if (span.tensor != nullptr) found.tensors.push_back(span.tensor);
  }
  found.form = std::make_shared<const CodedForm>(std::move(matrix));
  return found;
}

CodedFinder::Found CodedFinder::find(const WantedWeight& wanted) const {
  if (wanted.shape.size() != 2) return {};
  auto matrix = find_matrix(wanted);
  if (!matrix) return {};
  Found found = finish(std::move(*matrix));
  // Says what the codes' shape and config.json say too.
  if (source_.method == SourceMethod::kCompressedTensors) {
    const io::TensorInfo* const shape = parts_.find(wanted.name + "_shape");
    if (shape != nullptr) found.tensors.push_back(shape);
  }
  return found;
}

std::optional<CodedMatrix> CodedFinder::find_matrix(
    const WantedWeight& wanted) const {
  const bool stored = wanted.tensor != nullptr;
  switch (source_.method) {
    case SourceMethod::kPlain:
    case SourceMethod::kFettle:
      return std::nullopt;
    case SourceMethod::kFp8:
      return stored ? find_bytes(wanted, kBlockScale) : std::nullopt;
    case SourceMethod::kCompressedTensors:
      return stored ? find_bytes(wanted, kScale)
                    : find_packed_words(parts_, source_, wanted);
    case SourceMethod::kGptq:
      return stored ? std::nullopt : find_gptq_words(parts_, source_, wanted);
    case SourceMethod::kAwq:
      return stored ? std::nullopt : find_awq_words(parts_, source_, wanted);
    case SourceMethod::kMxfp4:
      if (stored) return std::nullopt;
      return find_mxfp4(
          parts_,
          {.name = wanted.name,
           .all = wanted.shape[0],
           .rows = wanted.shape[0],
           .cols = wanted.shape[1]});
  }
  throw InternalError("a source of no known method");
}

std::optional<CodedMatrix> CodedFinder::find_bytes(
    const WantedWeight& wanted, const std::string& scale_name) const {
  const io::TensorInfo& codes = *wanted.tensor;
  const bool fp8 = is_fp8(codes);
  const bool by_blocks = source_.method == SourceMethod::kFp8;
  const bool integers = !by_blocks && codes.dtype == io::DType::kI8;
  if (!fp8 && !integers) return std::nullopt;
  require_shape(codes, wanted.shape, "by config.json");
  CodedMatrix m{.rows = wanted.shape[0], .cols = wanted.shape[1]};
  m.level = fp8 ? CodeLevel::kFp8 : CodeLevel::kSigned;
  m.codes = whole(codes);
  const io::TensorInfo& scales = parts_.require(
      codes.name + scale_name,
      by_blocks ? PartKind::kBlockScales : PartKind::kScales);
  set_grid(scales, source_.schemes, m);
  const io::TensorInfo* const zeros = parts_.find(codes.name + "_zero_point");
  if (integers && zeros != nullptr) {
    m.zeros = parts_.require(
        zeros->name, PartKind::kBytes, scales.shape, "as its scales have");
    m.zero_order = ZeroOrder::kBytes;
  }
  m.blocks = by_blocks && source_.schemes.front().block_rows > 0;
  m.name = by_blocks
               ? block_name(m)
               : fmt::format("{} of compressed-tensors", fp8 ? "fp8" : "int8");
  return m;
}

CodedFinder::Found CodedFinder::find(
    const io::TensorInfo& stack, const Slice& slice) const {
  if (source_.method != SourceMethod::kFp8 || !is_fp8(stack)) return {};
  FETTLE_ASSERT(stack.shape.size() == 3);
  const std::int64_t all = stack.shape[1], cols = stack.shape[2];
  CodedMatrix m{.rows = slice.rows, .cols = cols, .level = CodeLevel::kFp8};
  m.block_rows = source_.schemes.front().block_rows;
  m.block_cols = source_.schemes.front().block_cols;
  if (m.block_rows == 0) {
    refuse_part(
        stack.name,
        "stacks experts in fp8, which needs 'weight_block_size' in the "
        "'quantization_config' of config.json");
  }
  // Gate and up have scales of their own, however short they are.
  const bool halves = slice.rows < all && all <= m.block_rows;
  if (halves) m.block_rows = slice.rows;
  const std::int64_t grid_rows = blocks_in(all, m.block_rows);
  m.grid_cols = blocks_in(cols, m.block_cols);
  const io::TensorInfo& scales =
      parts_.require(stack.name + kBlockScale, PartKind::kBlockScales);
  require_shape(
      scales,
      {stack.shape[0], grid_rows, m.grid_cols},
      fmt::format("for blocks of {} x {}", m.block_rows, m.block_cols));
  const auto code =
      static_cast<std::uint64_t>((slice.index * all + slice.first) * cols);
  m.codes = {&stack, code, static_cast<std::uint64_t>(slice.rows * cols)};
  m.row_begin = slice.first % m.block_rows;
  m.grid_rows = blocks_in(m.row_begin + slice.rows, m.block_rows);
  const auto row_bytes =
      static_cast<std::uint64_t>(m.grid_cols) * io::size_of(scales.dtype);
  const std::int64_t above =
      slice.index * grid_rows + slice.first / m.block_rows;
  m.scales = {
      &scales,
      static_cast<std::uint64_t>(above) * row_bytes,
      static_cast<std::uint64_t>(m.grid_rows) * row_bytes};
  m.blocks = m.row_begin == 0 && !halves;
  m.name = block_name(m);
  return finish(std::move(m));
}

CodedFinder::Found CodedFinder::find(const WantedBlocks& wanted) const {
  if (source_.method != SourceMethod::kMxfp4) return {};
  auto matrix = find_mxfp4(parts_, wanted);
  return matrix ? finish(std::move(*matrix)) : Found{};
}

bool CodedFinder::is_leftover(const io::TensorInfo& tensor) const {
  const auto ends = [&](std::string_view end) {
    return tensor.name.ends_with(end);
  };
  switch (source_.method) {
    case SourceMethod::kPlain:
    case SourceMethod::kFettle:
      return false;
    case SourceMethod::kFp8:
    case SourceMethod::kCompressedTensors:
      // Scales of activations, which Fettle does not round.
      return ends(".input_scale") || ends(".activation_scale") ||
             ends(".input_zero_point") || ends(".output_scale");
    case SourceMethod::kMxfp4:
      return false;
    case SourceMethod::kGptq:
    case SourceMethod::kAwq:
      break;
  }
  // Early versions wrote a bias of zeros for every module.
  if (!ends(".bias")) return false;
  const at::Tensor bytes = read_span(parts_.checkpoint(), whole(tensor));
  return !at::any(bytes).item<bool>();
}

std::string CodedFinder::why_stray(const io::TensorInfo& tensor) const {
  constexpr std::array<std::string_view, 5> kParts = {
      kBlockScaleSuffix, kScale, "_zero_point", kBlocksSuffix, kScalesSuffix};
  for (const std::string_view part : kParts) {
    if (!tensor.name.ends_with(part)) continue;
    const io::TensorInfo* const of =
        parts_.find(tensor.name.substr(0, tensor.name.size() - part.size()));
    if (of == nullptr) continue;
    return fmt::format(
        "stands beside {}, which is stored as {} and, by 'quantization_config' "
        "of config.json, needs no such tensor",
        of->name,
        io::name_of(of->dtype));
  }
  return {};
}

}  // namespace fettle::model
