// SPDX-License-Identifier: Apache-2.0
#include "model/weights/weight_loading.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "model/weights/stacked_rows.h"

namespace fettle::model {
namespace {

// Small enough for a core's cache, where the conversion finds what was read.
constexpr std::int64_t kPieceBytes = 1 << 20;
// Each piece of a coded weight reads its scales again.
constexpr std::int64_t kCodedPieceBytes = 4 << 20;

std::int64_t stored_rows(const WeightCopy& copy) {
  return copy.into.size(copy.transposed ? 1 : 0);
}

std::int64_t stored_cols(const WeightCopy& copy) {
  return copy.into.size(copy.transposed ? 0 : 1);
}

// A weight that lies with rows and columns exchanged is plain when it is called
// by them.
WeightCopy upright(const WeightCopy& copy) {
  const auto& steps = copy.from.steps;
  const bool turns =
      copy.first_row == 0 && steps == ElementSteps{1, stored_rows(copy)};
  if (!turns) return copy;
  WeightCopy turned{copy.from, copy.into, !copy.transposed, 0};
  turned.from.steps.reset();
  return turned;
}

// Some rows of one copy.
struct Piece {
  const WeightCopy* copy;
  std::int64_t first;
  std::int64_t count;
};

// Not finite: all exponent bits are set. The loop without a branch or a
// counter vectorises; numbers are counted only once something was found.
template <typename Word>
bool any_not_finite(const at::Tensor& tensor, Word exponent) {
  const Word* words = static_cast<const Word*>(tensor.data_ptr());
  const std::int64_t n = tensor.numel();
  Word found = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    found |= static_cast<Word>((words[i] & exponent) == exponent);
  }
  return found != 0;
}

bool any_not_finite(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return any_not_finite<std::uint32_t>(tensor, 0x7f800000u);
    case at::kBFloat16:
      return any_not_finite<std::uint16_t>(tensor, 0x7f80u);
    default:
      return any_not_finite<std::uint16_t>(tensor, 0x7c00u);
  }
}

void read_piece(
    const io::Checkpoint& checkpoint,
    const Piece& piece,
    const at::Tensor& into) {
  const auto& from = piece.copy->from;
  const std::int64_t first = piece.copy->first_row + piece.first;
  if (from.form != nullptr) return from.form->open(checkpoint)(first, into);
  read_plain_rows(checkpoint, from, {first, into.size(0), into.size(1)}, into);
}

// In which it is read: a weight that is not plain comes out of its form in
// fp32.
at::ScalarType read_type(const WeightCopy& copy) {
  return copy.from.form != nullptr ? at::kFloat
                                   : scalar_type(copy.from.tensor->dtype);
}

at::Tensor staging(const Piece& piece) {
  return at::empty(
      {piece.count, stored_cols(*piece.copy)},
      at::TensorOptions(read_type(*piece.copy)));
}

std::vector<Piece> cut(const WeightCopy& copy) {
  const std::int64_t rows = stored_rows(copy);
  const std::int64_t row_bytes =
      stored_cols(copy) *
      static_cast<std::int64_t>(c10::elementSize(read_type(copy)));
  std::vector<Piece> pieces;
  if (rows == 0 || row_bytes == 0) return pieces;
  const std::int64_t most =
      copy.from.form != nullptr ? kCodedPieceBytes : kPieceBytes;
  const std::int64_t step = std::max<std::int64_t>(1, most / row_bytes);
  for (std::int64_t first = 0; first < rows; first += step) {
    pieces.push_back({&copy, first, std::min(step, rows - first)});
  }
  return pieces;
}

[[noreturn]] void refuse_values(
    const io::Checkpoint& checkpoint, const WeightCopy& copy) {
  std::int64_t bad = 0;
  for (const Piece& piece : cut(copy)) {
    const at::Tensor raw = staging(piece);
    read_piece(checkpoint, piece, raw);
    const at::Tensor converted = raw.to(copy.into.scalar_type()).to(at::kFloat);
    bad += raw.numel() - at::isfinite(converted).sum().item<std::int64_t>();
  }
  throw UserError(
      "weights",
      copy.from.tensor->name,
      fmt::format(
          "holds {} values that are NaN, infinite or too large for {}. Perhaps "
          "a damaged file?",
          bad,
          at::toString(copy.into.scalar_type())));
}

void load_piece(const io::Checkpoint& checkpoint, const Piece& piece) {
  const WeightCopy& copy = *piece.copy;
  const at::Tensor target =
      copy.into.narrow(copy.transposed ? 1 : 0, piece.first, piece.count);
  const at::ScalarType type = target.scalar_type();
  const at::ScalarType stored = read_type(copy);
  const bool direct =
      !copy.transposed && stored == type && target.is_contiguous();
  const at::Tensor raw = direct ? target : staging(piece);
  read_piece(checkpoint, piece, raw);
  bool damaged = any_not_finite(raw);
  if (!direct && !damaged) {
    // First to the type, then across: copies of one type transpose in blocks.
    const at::Tensor converted = raw.to(type);
    damaged = type != at::kFloat && type != stored && any_not_finite(converted);
    target.copy_(copy.transposed ? converted.t() : converted);
  }
  if (damaged) refuse_values(checkpoint, copy);
}

}  // namespace

at::ScalarType scalar_type(io::DType dtype) {
  switch (dtype) {
    case io::DType::kF32:
      return at::kFloat;
    case io::DType::kBF16:
      return at::kBFloat16;
    default:
      FETTLE_ASSERT(dtype == io::DType::kF16);
      return at::kHalf;
  }
}

void load_weights(
    const io::Checkpoint& checkpoint, std::span<const WeightCopy> copies) {
  std::vector<WeightCopy> whole;
  whole.reserve(copies.size());
  for (const WeightCopy& copy : copies) whole.push_back(upright(copy));
  std::vector<Piece> pieces;
  for (const WeightCopy& copy : whole) {
    for (const Piece& piece : cut(copy)) pieces.push_back(piece);
  }
  at::parallel_for(
      0,
      static_cast<std::int64_t>(pieces.size()),
      1,
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          load_piece(checkpoint, pieces[static_cast<std::size_t>(i)]);
        }
      });
}

}  // namespace fettle::model
