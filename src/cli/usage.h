// SPDX-License-Identifier: Apache-2.0
// CLI11's errors in the program's own words: what was expected, what was found,
// and what was perhaps meant.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace fettle::cli {

struct UsageText {
  std::string subject;  // "--keep"
  std::string message;  // "expected a number, found 'half'"
};

// Describes an error that parsing `parser` ended in.
UsageText usage_text(const CLI::App& parser, const CLI::ParseError& error);

// What an option's value must be: "a whole number above 0", or "one of a, b".
std::string expected_text(const CLI::Option& option);

}  // namespace fettle::cli
