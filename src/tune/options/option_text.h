// SPDX-License-Identifier: Apache-2.0
// What is said of an option, and what its value may be.
#pragma once

#include <limits>
#include <string>
#include <vector>

namespace fettle::tune {

struct OptionText {
  const char* name;          // in recipes and records; the flag has dashes
  const char* help;          // one line
  const char* methods = "";  // those that read it, by spaces; empty: all
};

// Values that an option may have.
struct Allowed {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool above_least = false;               // not `least` itself
  bool below_most = false;                // not `most` itself
  std::vector<std::string> choices = {};  // of a text; empty: any

  bool holds(double value) const;
  bool holds(const std::string& value) const;
  std::string text() const;  // "0 or more"
};

inline Allowed at_least(double least) { return {.least = least}; }
inline Allowed positive() { return {.least = 0.0, .above_least = true}; }
inline Allowed share() { return {.least = 0.0, .most = 1.0}; }
inline Allowed one_of(std::vector<std::string> choices) {
  return {.choices = std::move(choices)};
}

}  // namespace fettle::tune
