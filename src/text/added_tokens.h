// SPDX-License-Identifier: Apache-2.0
// Tokens that are found in the text as a whole, before the byte-pair model sees
// it: control tokens such as <|im_end|>, and words added to a vocabulary.
// Immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json.h"
#include "text/bpe_model.h"
#include "text/normalizer.h"
#include "text/regex.h"

namespace fettle::text {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space on its left along
  bool rstrip = false;
  bool normalized = false;  // looked for in the normalized text
  bool special = false;
  // How decode writes it. The reference writes a normalized token in its
  // normalized form, and leaves out what is then spelled like a special token.
  std::string spelling;
  bool left_out = false;
};

// A part of a text: an added token, or text for the model where token is -1.
struct TextPart {
  Span span;
  std::int32_t token;
};

// Leftmost-longest search for many strings at once.
class TokenMatcher {
 public:
  // On equal patterns the first one wins.
  void add(std::string_view pattern, const AddedToken* token);
  bool empty() const { return edges_.empty(); }

  // Cuts `text` into parts, in order, without empty text. `word`
  // matches a word character.
  std::vector<TextPart> split(std::string_view text, const Regex& word) const;

 private:
  struct Found {
    std::size_t end;
    const AddedToken* token;
  };
  std::optional<Found> longest_at(std::string_view text, std::size_t at) const;

  std::unordered_map<std::uint64_t, std::uint32_t> edges_;  // node << 8 | byte
  std::vector<const AddedToken*> ends_{nullptr};            // by node
  std::array<bool, 256> starts_{};
};

class AddedTokens {
 public:
  // Reads the "added_tokens" of a tokenizer.json. Throws UserError on entries
  // that repeat or contradict each other, the vocabulary, or the ids that the
  // reference would give them.
  AddedTokens(
      const JsonObject& tokenizer,
      const BpeModel& model,
      const Normalizer& normalizer);
  AddedTokens(const AddedTokens&) = delete;
  AddedTokens& operator=(const AddedTokens&) = delete;

  std::vector<TextPart> split_raw(std::string_view text) const {
    return raw_.split(text, word_);
  }
  std::vector<TextPart> split_normalized(std::string_view text) const {
    return normalized_.split(text, word_);
  }

  // Null where there is none.
  const AddedToken* by_id(std::int32_t id) const;
  const AddedToken* by_content(std::string_view content) const;
  // Largest id + 1, 0 without tokens.
  std::int64_t id_end() const { return id_end_; }

 private:
  void read(const Json& list, const BpeModel& model);
  void check_id(const AddedToken& token, const BpeModel& model) const;
  void index(const Normalizer& normalizer);

  std::string subject_;
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::int32_t, const AddedToken*> ids_;
  std::int64_t id_end_ = 0;
  TokenMatcher raw_;
  TokenMatcher normalized_;
  Regex word_;
};

}  // namespace fettle::text
