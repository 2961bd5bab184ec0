// SPDX-License-Identifier: Apache-2.0
// The normalizers of tokenizer.json: what is done to a text before it is cut
// into words. Immutable after construction.
#pragma once

#include <memory>
#include <string>

#include "core/json.h"

namespace fettle::text {

// A part of the input under normalization. `at_start` says whether its first
// character comes from the first character of the whole input, which Metaspace
// with prepend_scheme "first" asks for.
struct NormalizedText {
  std::string text;  // well-formed UTF-8
  bool at_start = true;
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(NormalizedText& part) const = 0;
};

// Builds the normalizer that `value` describes; null gives one that changes
// nothing. Unicode forms follow Unicode 12, as the reference's do; Lowercase
// follows Unicode 17. Throws UserError that names a type or an option that is
// not supported.
std::unique_ptr<Normalizer> make_normalizer(
    const Json& value, const std::string& subject);

}  // namespace fettle::text
