// SPDX-License-Identifier: Apache-2.0
// The pre-tokenizers of tokenizer.json: they cut a normalized text into the
// words that byte-pair merges never cross. Immutable after construction.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/regex.h"

namespace fettle::text {

// A text and its words, in order, none empty. Words need not cover the text.
struct Words {
  std::string text;         // well-formed UTF-8
  std::vector<Span> spans;  // bytes of `text`
  // The first byte of `text` stems from the first byte of the whole input.
  bool at_start = true;

  std::string_view view(Span span) const {
    return std::string_view(text).substr(span.begin, span.end - span.begin);
  }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Words& words) const = 0;
};

// Builds the pre-tokenizer that `value` describes; null gives one that changes
// nothing. Throws UserError that names a type or option that is not supported.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(
    const Json& value, const std::string& subject);

}  // namespace fettle::text
