// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding (Sennrich et al. 2016, section 3.2) over characters, with
// the byte fallback of SentencePiece. Immutable after construction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json.h"
#include "text/merge_table.h"

namespace fettle::text {

// No vocabulary comes near: an id above it is a damaged file.
inline constexpr std::int64_t kMaxTokenId = (std::int64_t{1} << 24) - 1;

// Reads a token id from JSON; throws UserError about `subject` unless it is an
// integer from 0 to kMaxTokenId.
std::int32_t read_token_id(const Json& value, const std::string& subject);

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>()(text);
  }
};

using Vocabulary =
    std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;

class BpeModel {
 public:
  // Reads the "model" of a tokenizer.json. Throws UserError on another type
  // than BPE, on options that are not supported, and on a vocabulary or merges
  // that contradict themselves.
  explicit BpeModel(const JsonObject& model);
  BpeModel(const BpeModel&) = delete;
  BpeModel& operator=(const BpeModel&) = delete;

  // Appends the tokens of one word of well-formed UTF-8. Throws UserError when
  // the word needs an unknown token that the vocabulary lacks.
  void encode_word(std::string_view word, std::vector<std::int32_t>& out) const;

  std::optional<std::int32_t> token_id(std::string_view token) const;
  // Null where no token has this id.
  const std::string* token(std::int32_t id) const;
  // Number of tokens.
  std::int64_t size() const {
    return static_cast<std::int64_t>(vocabulary_.size());
  }
  // Largest id + 1.
  std::int64_t id_end() const {
    return static_cast<std::int64_t>(tokens_.size());
  }

 private:
  void read_vocabulary(const JsonObject& model);
  void read_merges(const JsonObject& model);
  void read_bytes();
  std::int32_t character_id(std::string_view character) const;
  bool append_bytes(
      std::string_view character, std::vector<std::int32_t>& symbols) const;
  // The tokens of a word's characters, before any merge.
  std::vector<std::int32_t> symbols_of(std::string_view word) const;
  std::int32_t unknown_id(std::string_view character) const;

  std::string subject_;
  Vocabulary vocabulary_;
  std::vector<const std::string*> tokens_;  // by id; keys of vocabulary_
  MergeTable merges_{0};
  // Tokens of the characters below U+0180, and of the bytes; -1 for none.
  std::array<std::int32_t, 0x180> characters_;
  std::array<std::int32_t, 256> bytes_;
  std::string unknown_token_;
  std::optional<std::int32_t> unknown_id_;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace fettle::text
