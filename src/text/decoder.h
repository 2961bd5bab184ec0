// SPDX-License-Identifier: Apache-2.0
// The decoders of tokenizer.json: from the tokens' own spelling back to text.
// Immutable after construction.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::text {

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Rewrites the list of pieces; the text is their concatenation.
  virtual void apply(std::vector<std::string>& pieces) const = 0;
};

// Builds the decoder that `value` describes; null gives the reference's own
// default, which puts a space between tokens. Throws UserError that names a
// type or option that is not supported.
std::unique_ptr<Decoder> make_decoder(
    const Json& value, const std::string& subject);

}  // namespace fettle::text
