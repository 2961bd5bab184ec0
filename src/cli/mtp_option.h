// SPDX-License-Identifier: Apache-2.0
// --mtp: what becomes of heads that predict further tokens, wherever a model is
// written.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "artifact/carried_copy.h"

namespace fettle::cli {

// `value` is "auto" unless the option is given; see artifact::parse_mtp.
void add_mtp_option(CLI::App& app, std::string& value);

}  // namespace fettle::cli
