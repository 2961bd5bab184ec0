// SPDX-License-Identifier: Apache-2.0
#include "model/weights/stacked_rows.h"

#include <cstring>
#include <vector>

#include "core/error.h"

namespace fettle::model {
namespace {

// Takes every step-th of elements that were read together.
template <typename Word>
void spread(
    const std::vector<std::byte>& from,
    std::int64_t step,
    const at::Tensor& into) {
  const auto* words = reinterpret_cast<const Word*>(from.data());
  auto* to = static_cast<Word*>(into.data_ptr());
  const std::int64_t along = into.stride(0);
  for (std::int64_t i = 0; i < into.size(0); ++i) {
    to[i * along] = words[i * step];
  }
}

}  // namespace

void read_plain_rows(
    const io::Checkpoint& checkpoint,
    const WeightIndex::Place& place,
    const RowRange& range,
    const at::Tensor& out) {
  FETTLE_ASSERT(out.is_contiguous() && place.form == nullptr);
  const auto size = static_cast<std::int64_t>(io::size_of(place.tensor->dtype));
  const ElementSteps steps = place.steps_of(range.cols);
  const auto at = [&](std::int64_t elements) {
    return place.offset + static_cast<std::uint64_t>(elements * size);
  };
  if (out.numel() == 0) return;
  if (steps.col == 1 && steps.row == range.cols) {
    return checkpoint.read_range(
        place.tensor->name,
        at(range.first * steps.row),
        {static_cast<std::byte*>(out.data_ptr()), out.nbytes()});
  }
  const at::Tensor matrix = out.view({range.rows, range.cols});
  // Strips along what lies closer together.
  const bool down = range.cols == 1 || steps.row < steps.col;
  const std::int64_t step = down ? steps.row : steps.col;
  const std::int64_t length = down ? range.rows : range.cols;
  std::vector<std::byte> strip(
      static_cast<std::size_t>(((length - 1) * step + 1) * size));
  for (std::int64_t i = 0; i < (down ? range.cols : range.rows); ++i) {
    const std::int64_t first = range.first * steps.row;
    checkpoint.read_range(
        place.tensor->name,
        at(first + i * (down ? steps.col : steps.row)),
        strip);
    const at::Tensor into = matrix.select(down ? 1 : 0, i);
    size == 4 ? spread<std::uint32_t>(strip, step, into)
              : spread<std::uint16_t>(strip, step, into);
  }
}

std::uint64_t plain_extent(
    const WeightIndex::Place& place, std::int64_t rows, std::int64_t cols) {
  if (rows * cols == 0) return 0;
  const ElementSteps steps = place.steps_of(cols);
  return static_cast<std::uint64_t>(
             (rows - 1) * steps.row + (cols - 1) * steps.col + 1) *
         io::size_of(place.tensor->dtype);
}

}  // namespace fettle::model
