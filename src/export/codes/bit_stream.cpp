// SPDX-License-Identifier: Apache-2.0
#include "export/codes/bit_stream.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/packed_matrix.h"

namespace fettle::exporter {

std::int64_t stream_words(std::int64_t count, std::int64_t bits) {
  return (count * bits + 31) / 32;
}

// Packed rows are the same stream, filled up to `bits` bytes: only their length
// is changed.
at::Tensor pack_stream(const at::Tensor& codes, std::int64_t bits) {
  const std::int64_t n = codes.size(0);
  at::Tensor words =
      at::zeros({n, stream_words(codes.size(1), bits)}, at::kInt);
  if (codes.numel() == 0) return words;
  const at::Tensor packed =
      kernels::pack_codes(kernels::PackedKind::kInt, bits, codes).view({n, -1});
  const at::Tensor bytes = words.view(at::kByte);
  const std::int64_t common = std::min(bytes.size(1), packed.size(1));
  bytes.narrow(1, 0, common).copy_(packed.narrow(1, 0, common));
  return words;
}

at::Tensor unpack_stream(
    const at::Tensor& words, std::int64_t bits, std::int64_t count) {
  const std::int64_t n = words.size(0), width = words.size(1);
  FETTLE_ASSERT(words.scalar_type() == at::kInt && words.is_contiguous());
  FETTLE_ASSERT(width == stream_words(count, bits));
  at::Tensor codes = at::empty({n, count}, at::kByte);
  const auto mask = (std::uint64_t{1} << bits) - 1;
  for (std::int64_t r = 0; r < n; ++r) {
    const std::int32_t* const row =
        words.const_data_ptr<std::int32_t>() + r * width;
    std::uint8_t* const out = codes.data_ptr<std::uint8_t>() + r * count;
    const auto word = [&](std::int64_t w) {
      return w < width ? std::uint64_t{static_cast<std::uint32_t>(row[w])} : 0;
    };
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = i * bits;
      const std::uint64_t both = word(at / 32) | word(at / 32 + 1) << 32;
      out[i] = static_cast<std::uint8_t>(both >> (at % 32) & mask);
    }
  }
  return codes;
}

}  // namespace fettle::exporter
