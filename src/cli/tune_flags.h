// SPDX-License-Identifier: Apache-2.0
// The flags of a tune run, one for each field of its options.
#pragma once

#include <CLI/CLI.hpp>

#include "tune/options/tune_options.h"

namespace fettle::cli {

void add_tune_flags(CLI::App& app, tune::TuneOptions& options);

}  // namespace fettle::cli
