// SPDX-License-Identifier: Apache-2.0
// A text and what follows it as tokens, split as lm-evaluation-harness 0.4.13
// splits them for log-likelihoods (TemplateLM._encode_pair): white space at the
// context's end goes to the continuation; both are encoded as one text, and
// the continuation is what comes behind as many tokens as the context alone
// has.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace fettle::text {

// What stands before a text that has no context: the begin token that
// tokenizer_config.json names, or else its end token.
struct PrefixToken {
  std::int32_t id;
  std::string text;
};

// Nothing where the file is missing or names neither. Throws UserError on a
// token that the tokenizer does not have.
std::optional<PrefixToken> prefix_token(
    const std::filesystem::path& model_folder, const Tokenizer& tokenizer);

struct EncodedPair {
  std::vector<std::int32_t> ids;  // of context and continuation
  std::size_t continuation = 0;   // tokens of it, at the end of `ids`
};

// Keeps a reference to the tokenizer.
class PairEncoder {
 public:
  PairEncoder(const Tokenizer& tokenizer, std::optional<PrefixToken> prefix);

  // At least one token stands before the continuation. Throws UserError about
  // `subject` where the continuation has no token of its own, and where there
  // is no context and no token to stand for it.
  EncodedPair encode(
      std::string_view context,
      std::string_view continuation,
      const std::string& subject) const;

 private:
  std::vector<std::int32_t> encode(std::string_view text) const;
  EncodedPair without_context(
      std::string_view continuation, const std::string& subject) const;

  const Tokenizer& tokenizer_;
  std::optional<PrefixToken> prefix_;
};

}  // namespace fettle::text
