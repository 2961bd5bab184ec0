// SPDX-License-Identifier: Apache-2.0
// The post-processors of tokenizer.json as far as they touch ids: the tokens
// that come before and after every text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::text {

struct PostProcessor {
  std::vector<std::int32_t> before;
  std::vector<std::int32_t> after;
};

// Reads TemplateProcessing (its "single" form), BertProcessing,
// RobertaProcessing, ByteLevel (which moves only offsets) and Sequence; null
// adds nothing. Throws UserError that names anything else.
PostProcessor read_post_processor(
    const Json& value, const std::string& subject);

}  // namespace fettle::text
