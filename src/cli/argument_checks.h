// SPDX-License-Identifier: Apache-2.0
// What is wrong with an argument whatever its option does.
#pragma once

#include <CLI/CLI.hpp>
#include <string_view>

namespace fettle::cli {

// Has the parser refuse numbers that no option can mean: infinity, none at all
// ("nan"), and whole ones beyond 10^12, which memory and time are counted in.
void check_numbers(CLI::App& app);

// Throws UserError unless `argument` is UTF-8, as JSON has it: names of files
// are recorded in results.
void require_utf8(std::string_view argument);

}  // namespace fettle::cli
