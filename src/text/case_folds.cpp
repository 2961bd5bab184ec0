// SPDX-License-Identifier: Apache-2.0
#include "text/case_folds.h"

#include <utf8proc.h>

#include <array>
#include <map>
#include <set>
#include <utility>

namespace fettle::text {
namespace {

// Capital letters of Unicode 16 and their lower case; utf8proc 2.8 stops at 14.
constexpr std::pair<char32_t, char32_t> kNewCapitals[] = {
    {0x1c89, 0x1c8a},
    {0xa7cb, 0x264},
    {0xa7cc, 0xa7cd},
    {0xa7da, 0xa7db},
    {0xa7dc, 0x19b}};
constexpr char32_t kGarayCapital = 0x10d50;
constexpr char32_t kGaraySmall = 0x10d70;
constexpr char32_t kGarayLetters = 22;

constexpr char32_t kLastCased = 0x1e943;

std::u32string library_fold(char32_t c) {
  std::array<utf8proc_int32_t, 8> out{};
  int boundary = 0;
  const utf8proc_ssize_t size = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(c),
      out.data(),
      static_cast<utf8proc_ssize_t>(out.size()),
      UTF8PROC_CASEFOLD,
      &boundary);
  if (size < 1) return {c};
  std::u32string folded;
  for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
    folded += static_cast<char32_t>(out[i]);
  }
  return folded;
}

struct Folds {
  std::map<char32_t, std::u32string> of;  // where it isn't the character itself
  std::map<std::u32string, std::set<char32_t>> variants;

  Folds() {
    for (char32_t c = 'A'; c <= kLastCased; ++c) add(c, library_fold(c));
    for (const auto& [capital, small] : kNewCapitals) add(capital, {small});
    for (char32_t i = 0; i < kGarayLetters; ++i) {
      add(kGarayCapital + i, {kGaraySmall + i});
    }
  }

  void add(char32_t c, const std::u32string& folded) {
    if (folded.size() == 1 && folded[0] == c) return;
    of[c] = folded;
    auto& group = variants[folded];
    group.insert(c);
    if (folded.size() == 1) group.insert(folded[0]);
  }
};

const Folds& folds() {
  static const Folds table;
  return table;
}

}  // namespace

std::u32string case_fold(char32_t c) {
  const auto found = folds().of.find(c);
  return found == folds().of.end() ? std::u32string{c} : found->second;
}

std::vector<char32_t> case_variants(char32_t c) {
  const auto found = folds().variants.find(case_fold(c));
  if (found == folds().variants.end()) return {c};
  return {found->second.begin(), found->second.end()};
}

bool ends_in_long_fold(std::u32string_view folded) {
  for (std::size_t size = 2; size <= 3 && size <= folded.size(); ++size) {
    const std::u32string end(folded.substr(folded.size() - size));
    if (folds().variants.count(end) > 0) return true;
  }
  return false;
}

FoldedSet fold_set(const std::function<bool(char32_t)>& contains) {
  FoldedSet result;
  for (const auto& [folded, variants] : folds().variants) {
    std::vector<char32_t> missing;
    for (const char32_t c : variants) {
      if (!contains(c)) missing.push_back(c);
    }
    if (missing.size() == variants.size()) continue;
    if (folded.size() > 1) result.has_long_fold = true;
    result.missing.insert(result.missing.end(), missing.begin(), missing.end());
  }
  return result;
}

}  // namespace fettle::text
