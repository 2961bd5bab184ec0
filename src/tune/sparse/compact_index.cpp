// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/compact_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "core/error.h"

namespace fettle::tune {

namespace {

constexpr std::int64_t kRun = 256;  // numbers that share a k
constexpr int kWidth = 6;           // bits of a k, or of a number of bits
// This many zeros say that a gap follows as it is: its number of bits, then it.
constexpr std::uint64_t kEscape = 24;
constexpr std::size_t kHeader = 8;
constexpr std::size_t kPadding = 8;
constexpr int kPeek = 57;  // bits of a word that are there at any place in it

std::uint64_t low_bits(std::uint64_t bits, int count) {
  return count >= 64 ? bits : bits & ((std::uint64_t{1} << count) - 1);
}

class BitWriter {
 public:
  explicit BitWriter(std::vector<std::uint8_t>& bytes) : bytes_(bytes) {}

  void put(std::uint64_t bits, int count) {
    for (; count > 32; count -= 32, bits >>= 32) put_few(bits, 32);
    put_few(bits, count);
  }
  void put_unary(std::uint64_t zeros) {
    for (; zeros > 31; zeros -= 32) put_few(0, 32);
    put_few(std::uint64_t{1} << zeros, static_cast<int>(zeros) + 1);
  }
  void finish() { put_few(0, (8 - held_) % 8); }

 private:
  void put_few(std::uint64_t bits, int count) {  // at most 32
    buffer_ |= low_bits(bits, count) << held_;
    for (held_ += count; held_ >= 8; held_ -= 8, buffer_ >>= 8) {
      bytes_.push_back(static_cast<std::uint8_t>(buffer_));
    }
  }

  std::vector<std::uint8_t>& bytes_;
  std::uint64_t buffer_ = 0;
  int held_ = 0;  // bits of the buffer, below 8 between calls
};

// Past the end it gives zeros.
class BitReader {
 public:
  // `bytes` are followed by kPadding more.
  BitReader(const std::uint8_t* bytes, std::size_t count)
      : bytes_(bytes), end_(8 * static_cast<std::uint64_t>(count)) {}

  std::uint64_t take(int count) {
    if (past_end()) return 0;
    const int few = std::min(count, kPeek);
    const std::uint64_t bits = low_bits(peek(), few);
    at_ += static_cast<std::uint64_t>(few);
    return count > few ? bits | take(count - few) << few : bits;
  }
  std::uint64_t take_unary() {
    std::uint64_t zeros = 0;
    for (; !past_end(); zeros += kPeek, at_ += kPeek) {
      const std::uint64_t bits = low_bits(peek(), kPeek);
      if (bits == 0) continue;
      const auto more = static_cast<std::uint64_t>(std::countr_zero(bits));
      at_ += more + 1;
      return zeros + more;
    }
    return zeros;
  }
  bool past_end() const { return at_ > end_; }
  // Nothing but the last byte's filling is left.
  bool at_end() const { return at_ <= end_ && end_ - at_ < 8; }

 private:
  std::uint64_t peek() const {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes_ + at_ / 8, sizeof(word));
    return word >> (at_ % 8);
  }

  const std::uint8_t* bytes_;
  std::uint64_t at_ = 0;  // in bits
  std::uint64_t end_;
};

// Bits of a gap's code, but for the one that ends its zeros.
std::uint64_t length(std::uint64_t gap, int k) {
  const std::uint64_t zeros = gap >> k;
  return zeros < kEscape ? zeros + static_cast<std::uint64_t>(k)
                         : kEscape + kWidth +
                               static_cast<std::uint64_t>(std::bit_width(gap));
}

// The k with the shortest codes for some gaps; more than their mean has bits
// never pays.
int best_k(std::span<const std::uint64_t> gaps) {
  std::uint64_t sum = 0;
  for (const std::uint64_t gap : gaps) sum += gap;
  const int most = std::bit_width(sum / gaps.size());
  int best = 0;
  std::uint64_t least = UINT64_MAX;
  for (int k = 0; k <= most; ++k) {
    std::uint64_t total = 0;
    for (const std::uint64_t gap : gaps) total += length(gap, k);
    if (total < least) {
      least = total;
      best = k;
    }
  }
  return best;
}

void put_gap(BitWriter& writer, std::uint64_t gap, int k) {
  const std::uint64_t zeros = gap >> k;
  writer.put_unary(std::min(zeros, kEscape));
  if (zeros < kEscape) {
    writer.put(gap, k);
  } else {
    writer.put(static_cast<std::uint64_t>(std::bit_width(gap)), kWidth);
    writer.put(gap, std::bit_width(gap));
  }
}

std::uint64_t take_gap(BitReader& reader, int k) {
  const std::uint64_t zeros = reader.take_unary();
  if (zeros < kEscape) return (zeros << k) | reader.take(k);
  return reader.take(static_cast<int>(reader.take(kWidth)));
}

// The numbers, or none where there are not `count` of them below `limit`.
std::optional<at::Tensor> decoded(
    const at::Tensor& stored, std::int64_t count, std::uint64_t limit) {
  const auto* bytes = stored.const_data_ptr<std::uint8_t>() + kHeader;
  BitReader reader(
      bytes, static_cast<std::size_t>(stored.numel()) - kHeader - kPadding);
  at::Tensor index = at::empty({count}, at::kLong);
  auto* number = index.mutable_data_ptr<std::int64_t>();
  std::uint64_t next = 0;  // the least that may follow
  int k = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i % kRun == 0) k = static_cast<int>(reader.take(kWidth));
    const std::uint64_t gap = take_gap(reader, k);
    if (reader.past_end() || gap >= limit - next) return std::nullopt;
    next += gap + 1;
    number[i] = static_cast<std::int64_t>(next) - 1;
  }
  if (!reader.at_end()) return std::nullopt;
  return index;
}

std::uint64_t count_of(const at::Tensor& stored) {
  std::uint64_t count = 0;
  std::memcpy(&count, stored.const_data_ptr<std::uint8_t>(), sizeof(count));
  return count;
}

}  // namespace

CompactIndex::CompactIndex(const at::Tensor& index) : size_(index.size(0)) {
  const auto* numbers = index.const_data_ptr<std::int64_t>();
  std::vector<std::uint8_t> bytes(kHeader);
  std::memcpy(bytes.data(), &size_, kHeader);
  BitWriter writer(bytes);
  std::int64_t last = -1;
  for (std::int64_t first = 0; first < size_; first += kRun) {
    std::array<std::uint64_t, kRun> gaps{};
    const auto count = static_cast<std::size_t>(std::min(kRun, size_ - first));
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t number = numbers[first + static_cast<std::int64_t>(i)];
      FETTLE_ASSERT(number > last);
      gaps[i] = static_cast<std::uint64_t>(number - last - 1);
      last = number;
    }
    const int k = best_k(std::span(gaps).first(count));
    writer.put(static_cast<std::uint64_t>(k), kWidth);
    for (std::size_t i = 0; i < count; ++i) put_gap(writer, gaps[i], k);
  }
  writer.finish();
  bytes.resize(bytes.size() + kPadding);
  stored_ = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::memcpy(
      stored_.mutable_data_ptr<std::uint8_t>(), bytes.data(), bytes.size());
}

CompactIndex CompactIndex::from_stored(
    const at::Tensor& stored, const std::string& name, std::int64_t limit) {
  const bool fits =
      stored.scalar_type() == at::kByte && stored.dim() == 1 &&
      stored.numel() >= static_cast<std::int64_t>(kHeader + kPadding);
  CompactIndex index;
  // No number takes less than a bit.
  if (fits && count_of(stored) <= static_cast<std::uint64_t>(limit) &&
      count_of(stored) <= 8 * static_cast<std::uint64_t>(stored.numel())) {
    index.size_ = static_cast<std::int64_t>(count_of(stored));
    index.stored_ = stored.contiguous();
    if (decoded(
            index.stored_, index.size_, static_cast<std::uint64_t>(limit))) {
      return index;
    }
  }
  throw UserError(
      "tune",
      name,
      fmt::format(
          "expected the codes of ascending numbers below {}, found others; the "
          "file is damaged or of another model",
          limit));
}

at::Tensor CompactIndex::decode() const {
  const auto index = decoded(stored_, size_, std::uint64_t{1} << 62);
  FETTLE_ASSERT(index.has_value());
  return *index;
}

}  // namespace fettle::tune
