// SPDX-License-Identifier: Apache-2.0
// Whether the texts that a fit is given hold any token, judged before any work.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/data_flags.h"
#include "cli/session.h"

namespace fettle::cli {

struct FitTexts {
  const std::vector<std::string>& files;  // as --data and --held name them
  const DataFlags& flags;
  std::int64_t seq_len = 0;
};

// Throws UserError on the first file without a sample that counts; reads each
// no further than to that sample.
void require_tokens(
    Session& session, const model::ModelReader& reader, const FitTexts& texts);

}  // namespace fettle::cli
