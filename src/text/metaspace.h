// SPDX-License-Identifier: Apache-2.0
// Metaspace: spaces written as a visible character, usually "▁" (U+2581), as
// SentencePiece does (Kudo and Richardson 2018).
#pragma once

#include <memory>
#include <string>

#include "core/json.h"
#include "text/pre_tokenizer.h"

namespace fettle::text {

enum class PrependScheme { kFirst, kAlways, kNever };

struct MetaspaceOptions {
  std::string replacement;  // one character
  // Where a replacement is put before a text that starts without one: before
  // the input's first part, before every part, or nowhere.
  PrependScheme prepend = PrependScheme::kAlways;
  bool split = true;  // a replacement starts a new word
};

// Reads both spellings, "prepend_scheme" and the older "add_prefix_space".
// Throws UserError where they contradict each other.
MetaspaceOptions read_metaspace(const JsonObject& component);

std::unique_ptr<PreTokenizer> make_metaspace_pre_tokenizer(
    const JsonObject& component);

}  // namespace fettle::text
