// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl: one line of JSON a step, step 0 being the state before any. A
// resumed run first drops the lines of steps that it will make again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/json.h"

namespace fettle::tune {

inline constexpr const char* kMetricsFile = "metrics.jsonl";

// The lines of a file, in order. Throws UserError when one is no JSON object.
std::vector<Json> read_metrics(const std::filesystem::path& path);

class MetricsFile {
 public:
  // Keeps the lines of steps up to `last_step`; none with -1.
  MetricsFile(std::filesystem::path path, std::int64_t last_step);

  // Appends a line and hands it to the system at once. A number that is not
  // finite becomes null. Throws UserError when the disk refuses.
  void append(const Json& line);

 private:
  std::filesystem::path path_;
  std::ofstream stream_;
};

}  // namespace fettle::tune
