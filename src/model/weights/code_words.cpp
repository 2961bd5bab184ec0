// SPDX-License-Identifier: Apache-2.0
#include "model/weights/code_words.h"

#include <array>

#include "core/error.h"

namespace fettle::model {
namespace {

constexpr std::int64_t kWordBits = 32;

// Codes that cross no word.
void split_words(
    const std::uint32_t* words,
    std::int64_t count,
    std::int64_t bits,
    std::uint8_t* codes) {
  const std::int64_t each = kWordBits / bits;
  const std::uint32_t mask = (1u << bits) - 1;
  for (std::int64_t i = 0; i < count; ++i) {
    codes[i] =
        static_cast<std::uint8_t>(words[i / each] >> (i % each * bits) & mask);
  }
}

void split_stream(
    const std::uint32_t* words,
    std::int64_t count,
    std::int64_t bits,
    std::uint8_t* codes) {
  const std::uint32_t mask = (1u << bits) - 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t at = i * bits;
    std::uint64_t pair = words[at / kWordBits];
    if (at % kWordBits + bits > kWordBits) {
      pair |= static_cast<std::uint64_t>(words[at / kWordBits + 1])
              << kWordBits;
    }
    codes[i] = static_cast<std::uint8_t>(pair >> (at % kWordBits) & mask);
  }
}

}  // namespace

std::int64_t words_for(std::int64_t count, std::int64_t bits) {
  return (count * bits + kWordBits - 1) / kWordBits;
}

at::Tensor dense_codes(
    const at::Tensor& words, std::int64_t count, std::int64_t bits) {
  FETTLE_ASSERT(bits >= 1 && bits <= 8 && words.is_contiguous());
  FETTLE_ASSERT(words.size(1) == words_for(count, bits));
  at::Tensor codes = at::empty({words.size(0), count}, at::kByte);
  const auto* from = static_cast<const std::uint32_t*>(words.const_data_ptr());
  auto* to = codes.data_ptr<std::uint8_t>();
  const auto split = kWordBits % bits == 0 ? split_words : split_stream;
  for (std::int64_t r = 0; r < words.size(0); ++r) {
    split(from + r * words.size(1), count, bits, to + r * count);
  }
  return codes;
}

at::Tensor awq_codes(const at::Tensor& words) {
  constexpr std::array<std::int64_t, 8> kNibble = {0, 4, 1, 5, 2, 6, 3, 7};
  FETTLE_ASSERT(words.is_contiguous());
  at::Tensor codes = at::empty({words.size(0), 8 * words.size(1)}, at::kByte);
  const auto* from = static_cast<const std::uint32_t*>(words.const_data_ptr());
  auto* to = codes.data_ptr<std::uint8_t>();
  for (std::int64_t w = 0; w < words.numel(); ++w) {
    for (std::size_t i = 0; i < kNibble.size(); ++i) {
      *to++ = static_cast<std::uint8_t>(from[w] >> (4 * kNibble[i]) & 15u);
    }
  }
  return codes;
}

}  // namespace fettle::model
