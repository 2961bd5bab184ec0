// SPDX-License-Identifier: Apache-2.0
// The memory that a finished model takes when it runs, in a process of its own.
#pragma once

#include <cstdint>
#include <filesystem>

#include "cli/session.h"
#include "core/json.h"

namespace fettle::cli {

struct PeakRun {
  std::filesystem::path model;
  std::filesystem::path work;  // folder for what it writes
  std::int64_t context = 0;    // tokens of prompt and answer
  std::int64_t bytes = 0;      // that were promised, and are its bound
  bool on_card = false;        // of which memory
};

// Generates after a prompt that fills the context. {"promised_bytes",
// "measured_bytes", "tokens"}, or {"promised_bytes", "failed"}: what the run
// said where it could not be.
Json measured_peak(Session& session, const PeakRun& run);

}  // namespace fettle::cli
