// SPDX-License-Identifier: Apache-2.0
// The lengths of coded rows as a file has them (trit_code.h).
#include <algorithm>
#include <bit>

#include "core/error.h"
#include "kernels/trit_bits.h"
#include "kernels/trit_code.h"

namespace fettle::kernels {
namespace {

constexpr std::int64_t kHeadBytes = 5;

at::Tensor tensor_of_bytes(const std::vector<std::uint8_t>& bytes) {
  at::Tensor tensor =
      at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::copy(
      bytes.begin(), bytes.end(), tensor.mutable_data_ptr<std::uint8_t>());
  return tensor;
}

[[noreturn]] void refuse_row_lengths(const std::string& found) {
  throw UserError(
      "kernels",
      "coded ternary matrix",
      "the lengths of its rows are damaged: " + found +
          "; copy or make the file anew");
}

}  // namespace

at::Tensor encode_row_lengths(const at::Tensor& row_begin) {
  FETTLE_ASSERT(row_begin.is_cpu() && row_begin.scalar_type() == at::kLong);
  FETTLE_ASSERT(row_begin.dim() == 1 && row_begin.numel() >= 1);
  const at::Tensor whole = row_begin.contiguous();
  const auto* begin = whole.const_data_ptr<std::int64_t>();
  const std::int64_t rows = whole.numel() - 1;
  std::int64_t least = rows == 0 ? 0 : begin[1] - begin[0], most = least;
  for (std::int64_t r = 0; r < rows; ++r) {
    least = std::min(least, begin[r + 1] - begin[r]);
    most = std::max(most, begin[r + 1] - begin[r]);
  }
  FETTLE_ASSERT(least >= 0 && most <= 0xffffffff);
  const int bits = std::bit_width(static_cast<std::uint32_t>(most - least));
  BitWriter to;
  to.put(static_cast<std::uint32_t>(least), 32);
  to.put(static_cast<std::uint32_t>(bits), 8);
  for (std::int64_t r = 0; r < rows; ++r) {
    to.put(static_cast<std::uint32_t>(begin[r + 1] - begin[r] - least), bits);
  }
  return tensor_of_bytes(to.bytes());
}

at::Tensor decode_row_lengths(
    const at::Tensor& stored, std::int64_t rows, std::int64_t codes_bytes) {
  FETTLE_ASSERT(stored.is_cpu() && stored.scalar_type() == at::kByte);
  FETTLE_ASSERT(stored.dim() == 1 && stored.is_contiguous() && rows >= 0);
  const std::int64_t size = stored.numel();
  BitReader from(
      {stored.const_data_ptr<std::uint8_t>(), static_cast<std::size_t>(size)});
  const std::int64_t least = from.get(32);
  const int bits = static_cast<int>(from.get(8));
  if (size < kHeadBytes || bits > 32) refuse_row_lengths("no such head");
  // Rows without bits take no bytes, so that their number is not bounded yet.
  if (bits > 0 && rows > 8 * (size - kHeadBytes) / bits)
    refuse_row_lengths("bytes missing");
  if (least > 0 && rows > codes_bytes / least) {
    refuse_row_lengths("rows longer than all codes");
  }
  at::Tensor row_begin = at::zeros({rows + 1}, at::kLong);
  auto* begin = row_begin.mutable_data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < rows; ++r) {
    begin[r + 1] = begin[r] + least + from.get(bits);
    if (begin[r + 1] > codes_bytes) {
      refuse_row_lengths(
          "row " + std::to_string(r) + " ends behind the codes' " +
          std::to_string(codes_bytes) + " bytes");
    }
  }
  if (begin[rows] != codes_bytes) {
    refuse_row_lengths(
        "rows have " + std::to_string(begin[rows]) + " bytes and codes " +
        std::to_string(codes_bytes));
  }
  if (!from.is_at_end()) refuse_row_lengths("bytes behind the last row");
  return row_begin;
}

}  // namespace fettle::kernels
