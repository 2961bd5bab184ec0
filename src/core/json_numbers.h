// SPDX-License-Identifier: Apache-2.0
// JSON as Python writes it: NaN, Infinity, -Infinity, and numbers that Python
// reads as infinite (1e999), none of which JSON has.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fettle {

// JSON text in which numbers of a spelling that the original holds nowhere
// stand for the values that JSON lacks.
struct SpelledText {
  std::string text;
  std::array<std::string, 3> spellings;  // of NaN, infinity, -infinity

  // The number that `spelling` stands for, else nothing.
  std::optional<double> value(std::string_view spelling) const;
  // The position in the original text of one in `text`.
  std::size_t original(std::size_t position) const;

  struct Change {
    std::size_t end = 0;       // behind the number, in `text`
    std::size_t original = 0;  // the same in the original
  };
  std::vector<Change> changes;
};

// Nothing where `text` holds no such value outside strings.
std::optional<SpelledText> spell_non_finite(std::string_view text);

}  // namespace fettle
