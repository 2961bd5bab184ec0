// SPDX-License-Identifier: Apache-2.0
// Tokens of words met before in one text. Direct-mapped, so that its size is
// bounded whatever the text; a collision overwrites. Belongs to one call.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::text {

class WordCache {
 public:
  static constexpr std::size_t kMaxEntries = 4096;
  static constexpr std::size_t kMaxWordBytes = 64;

  explicit WordCache(std::size_t text_bytes)
      : entries_(std::bit_ceil(
            std::clamp<std::size_t>(text_bytes / 16, 1, kMaxEntries))) {}

  // Appends the tokens of `word` to `out`, by `encode(word, out)` where they
  // are not known yet.
  template <typename Encode>
  void append(
      std::string_view word, std::vector<std::int32_t>& out, Encode encode) {
    if (word.size() > kMaxWordBytes) return encode(word, out);
    const std::size_t slot =
        std::hash<std::string_view>()(word) & (entries_.size() - 1);
    Entry& entry = entries_[slot];
    if (entry.word != word) {
      const std::size_t begin = out.size();
      encode(word, out);
      entry.word = word;
      entry.ids.assign(
          out.begin() + static_cast<std::ptrdiff_t>(begin), out.end());
      return;
    }
    out.insert(out.end(), entry.ids.begin(), entry.ids.end());
  }

 private:
  struct Entry {
    std::string word;  // empty: unused; no word is empty
    std::vector<std::int32_t> ids;
  };
  std::vector<Entry> entries_;
};

}  // namespace fettle::text
