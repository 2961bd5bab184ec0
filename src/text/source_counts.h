// SPDX-License-Identifier: Apache-2.0
// What the samples of a data file came to.
#pragma once

#include <cstdint>
#include <string>

#include "text/sample.h"

namespace fettle::text {

struct SourceCounts {
  std::string name;
  double weight = 1.0;
  std::int64_t samples = 0;       // that are used
  std::int64_t tokens = 0;        // of them
  std::int64_t scored = 0;        // tokens of them that count for the loss
  std::int64_t cut = 0;           // of them, which were longer than a sequence
  std::int64_t lost = 0;          // tokens cut off that counted for the loss
  std::int64_t ended = 0;         // texts that the end token was added to
  std::int64_t skipped = 0;       // samples without a token that counts
  std::int64_t skipped_long = 0;  // of these, whose part that counts was cut
  std::int64_t skipped_windows = 0;  // of used samples, without such a token
};

// Tokens from the `first` on that count for the loss.
std::int64_t scored_from(const Sample& sample, std::size_t first);

}  // namespace fettle::text
