// SPDX-License-Identifier: Apache-2.0
#include "kernels/trit_huffman.h"

#include <algorithm>

#include "core/error.h"

namespace fettle::kernels {
namespace {

// A symbol at one level, or two things of the level below together.
struct MergedItem {
  std::int64_t count;
  bool is_symbol;
};

using MergedLevel = std::vector<MergedItem>;

// Pairs of the level below, merged with the symbols.
MergedLevel next_level(const MergedLevel& below, const MergedLevel& symbols) {
  MergedLevel pairs, level;
  for (std::size_t i = 0; i + 1 < below.size(); i += 2) {
    pairs.push_back({below[i].count + below[i + 1].count, false});
  }
  std::merge(
      symbols.begin(),
      symbols.end(),
      pairs.begin(),
      pairs.end(),
      std::back_inserter(level),
      [](const auto& a, const auto& b) { return a.count < b.count; });
  return level;
}

std::uint32_t reversed(std::uint32_t code, int bits) {
  std::uint32_t result = 0;
  for (int i = 0; i < bits; ++i) result |= (code >> i & 1) << (bits - 1 - i);
  return result;
}

}  // namespace

std::vector<int> huffman_lengths(
    std::span<const std::int64_t> counts, int most_bits) {
  std::vector<std::size_t> order;
  for (std::size_t symbol = 0; symbol < counts.size(); ++symbol) {
    if (counts[symbol] > 0) order.push_back(symbol);
  }
  const std::size_t n = order.size();
  FETTLE_ASSERT(n >= 2 && n <= std::size_t{1} << most_bits);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return counts[a] < counts[b];
  });
  MergedLevel symbols;
  for (const std::size_t symbol : order) {
    symbols.push_back({counts[symbol], true});
  }
  std::vector<MergedLevel> levels{symbols};
  for (int i = 1; i < most_bits; ++i) {
    levels.push_back(next_level(levels.back(), symbols));
  }
  // A symbol's length is how often it is among the cheapest, pairs opened.
  std::vector<int> lengths(counts.size(), 0);
  std::size_t taken = 2 * n - 2;
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    std::size_t found = 0;
    for (std::size_t i = 0; i < taken; ++i) {
      if ((*level)[i].is_symbol) ++lengths[order[found++]];
    }
    taken = 2 * (taken - found);
  }
  return lengths;
}

std::vector<std::uint32_t> huffman_codes(
    std::span<const int> lengths, int most_bits) {
  std::vector<std::uint32_t> of_length(static_cast<std::size_t>(most_bits) + 1);
  for (const int length : lengths) {
    if (length < 0 || length > most_bits) return {};
    ++of_length[static_cast<std::size_t>(length)];
  }
  of_length[0] = 0;
  std::vector<std::uint32_t> next(of_length.size());
  std::uint32_t code = 0;
  for (std::size_t bits = 1; bits < next.size(); ++bits) {
    code = (code + of_length[bits - 1]) << 1;
    next[bits] = code;
  }
  if (code + of_length.back() != 1u << most_bits) return {};
  std::vector<std::uint32_t> codes;
  for (const int length : lengths) {
    codes.push_back(reversed(next[static_cast<std::size_t>(length)]++, length));
  }
  return codes;
}

}  // namespace fettle::kernels
