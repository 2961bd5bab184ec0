// SPDX-License-Identifier: Apache-2.0
// From a rendered conversation to tokens, and labels on what the assistant
// said.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/chat_renderer.h"
#include "text/sample.h"
#include "text/tokenizer.h"

namespace fettle::text {

// Encodes the stretches' joined text as one. A token counts if it lies in a
// stretch that counts: it comes after all tokens of the text up to the
// stretch's begin, and is a token of the text up to its end. Where a counted
// stretch holds none of `end_ids` and one of them follows, that counts too.
// Takes time in proportion to the text where added tokens separate turns.
Sample label_answers(
    const std::vector<ChatSegment>& segments,
    const Tokenizer& tokenizer,
    std::span<const std::int32_t> end_ids);

}  // namespace fettle::text
