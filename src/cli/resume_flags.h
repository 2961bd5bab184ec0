// SPDX-License-Identifier: Apache-2.0
// The flags that say what becomes of a stopped run in the output folder.
#pragma once

#include <CLI/CLI.hpp>

namespace fettle::cli {

// --resume and --restart.
void add_resume_flags(CLI::App& app, bool& resume, bool& restart);

}  // namespace fettle::cli
