// SPDX-License-Identifier: Apache-2.0
// Scripts that complete commands, options and values, made from the parser.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace fettle::cli {

std::string bash_completion(const CLI::App& app);
std::string zsh_completion(const CLI::App& app);
std::string fish_completion(const CLI::App& app);

}  // namespace fettle::cli
