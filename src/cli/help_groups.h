// SPDX-License-Identifier: Apache-2.0
// Which options of a command belong together.
#pragma once

#include <CLI/CLI.hpp>
#include <string_view>

namespace fettle::cli {

// Options that no group names stay in "Options".
void group_options(CLI::App& parser, std::string_view command);

}  // namespace fettle::cli
