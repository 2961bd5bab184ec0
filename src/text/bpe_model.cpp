// SPDX-License-Identifier: Apache-2.0
#include "text/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "text/apply_merges.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

constexpr std::int32_t kNoToken = -1;

void refuse_unless_empty(const JsonObject& model, std::string_view key) {
  if (model.has(key) && !model.string(key).empty()) {
    model.refuse(key, "is not supported unless null or empty");
  }
}

// Both spellings of a merge: ["a", "b"] and "a b".
std::pair<std::string, std::string> read_merge(
    const JsonObject& model, const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
      merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && space == text.rfind(' ')) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  model.refuse(
      "merges",
      fmt::format(
          "must hold pairs such as [\"a\", \"b\"] or \"a b\", found {}",
          merge.dump().substr(0, 60)));
}

}  // namespace

std::int32_t read_token_id(const Json& value, const std::string& subject) {
  const bool fits =
      value.is_number_integer() &&
      !(value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX) &&
      value.get<std::int64_t>() >= 0 &&
      value.get<std::int64_t>() <= kMaxTokenId;
  if (!fits) {
    throw UserError(
        "tokenizer",
        subject,
        fmt::format(
            "a token id must be an integer from 0 to {}, found {}",
            kMaxTokenId,
            value.dump().substr(0, 40)));
  }
  return value.get<std::int32_t>();
}

BpeModel::BpeModel(const JsonObject& model) : subject_(model.subject()) {
  // Files older than version 0.9 of the reference carry no type.
  const std::string type = model.string_or("type", "BPE");
  if (type != "BPE") {
    model.refuse("type", fmt::format("'{}' is not supported, only BPE", type));
  }
  refuse_unless_empty(model, "continuing_subword_prefix");
  refuse_unless_empty(model, "end_of_word_suffix");
  if (model.number_or("dropout", 0.0) != 0.0) {
    model.refuse("dropout", "is not supported unless null or 0");
  }
  fuse_unknown_ = model.boolean_or("fuse_unk", false);
  byte_fallback_ = model.boolean_or("byte_fallback", false);
  ignore_merges_ = model.boolean_or("ignore_merges", false);
  read_vocabulary(model);
  read_merges(model);
  read_bytes();
  unknown_token_ = model.string_or("unk_token", "");
  if (model.has("unk_token")) unknown_id_ = token_id(unknown_token_);
}

void BpeModel::read_vocabulary(const JsonObject& model) {
  const Json& list = model.at("vocab");
  if (!list.is_object() || list.empty()) {
    model.refuse("vocab", "must be an object of tokens and ids, not empty");
  }
  vocabulary_.reserve(list.size());
  std::int32_t last = 0;
  for (const auto& item : list.items()) {
    const std::int32_t id = read_token_id(item.value(), subject_ + " 'vocab'");
    vocabulary_.emplace(item.key(), id);
    last = std::max(last, id);
  }
  tokens_.assign(static_cast<std::size_t>(last) + 1, nullptr);
  for (const auto& [token, id] : vocabulary_) {
    const std::string*& slot = tokens_[static_cast<std::size_t>(id)];
    if (slot != nullptr) {
      model.refuse(
          "vocab",
          fmt::format("gives id {} to both '{}' and '{}'", id, *slot, token));
    }
    slot = &token;
  }
}

void BpeModel::read_merges(const JsonObject& model) {
  const Json& list = model.at("merges");
  if (!list.is_array()) model.refuse("merges", "must be a list");
  const auto id_of = [&](const std::string& token) {
    const auto id = token_id(token);
    if (!id) {
      model.refuse(
          "merges",
          fmt::format("names '{}', which the vocabulary lacks", token));
    }
    return *id;
  };
  merges_ = MergeTable(list.size());
  std::uint32_t rank = 0;
  for (const Json& item : list) {
    if (item.is_string() &&
        item.get_ref<const std::string&>().rfind("#version", 0) == 0) {
      continue;
    }
    const auto [left, right] = read_merge(model, item);
    const std::int32_t left_id = id_of(left);
    const std::int32_t right_id = id_of(right);
    merges_.set(left_id, right_id, {rank++, id_of(left + right)});
  }
}

void BpeModel::read_bytes() {
  characters_.fill(kNoToken);
  for (char32_t c = 0; c < characters_.size(); ++c) {
    std::string text;
    append_utf8(text, c);
    characters_[c] = token_id(text).value_or(kNoToken);
  }
  bytes_.fill(kNoToken);
  for (std::size_t byte = 0; byte < 256; ++byte) {
    bytes_[byte] = token_id(fmt::format("<0x{:02X}>", byte)).value_or(kNoToken);
  }
}

std::optional<std::int32_t> BpeModel::token_id(std::string_view token) const {
  const auto found = vocabulary_.find(token);
  if (found == vocabulary_.end()) return std::nullopt;
  return found->second;
}

const std::string* BpeModel::token(std::int32_t id) const {
  if (id < 0 || id >= id_end()) return nullptr;
  return tokens_[static_cast<std::size_t>(id)];
}

std::int32_t BpeModel::character_id(std::string_view character) const {
  if (character.size() <= 2) {
    const char32_t c = decode_at(character, 0);
    if (c < characters_.size()) return characters_[c];
  }
  return token_id(character).value_or(kNoToken);
}

bool BpeModel::append_bytes(
    std::string_view character, std::vector<std::int32_t>& symbols) const {
  if (!byte_fallback_) return false;
  const auto id_of = [&](char byte) {
    return bytes_[static_cast<unsigned char>(byte)];
  };
  for (const char byte : character) {
    if (id_of(byte) == kNoToken) return false;
  }
  for (const char byte : character) symbols.push_back(id_of(byte));
  return true;
}

std::int32_t BpeModel::unknown_id(std::string_view character) const {
  if (!unknown_id_) {
    throw UserError(
        "tokenizer",
        subject_,
        fmt::format(
            "the text needs unk_token '{}' for '{}', but the vocabulary has "
            "no such token",
            unknown_token_,
            character));
  }
  return *unknown_id_;
}

std::vector<std::int32_t> BpeModel::symbols_of(std::string_view word) const {
  std::vector<std::int32_t> symbols;
  symbols.reserve(word.size());
  // Like the reference's, an unknown token waits for the next character that is
  // known, and bytes don't count as such.
  std::int32_t waiting = kNoToken;
  const auto release = [&] {
    if (waiting != kNoToken) symbols.push_back(waiting);
    waiting = kNoToken;
  };
  for (std::size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, utf8_length(word[at]));
    at += character.size();
    const std::int32_t id = character_id(character);
    if (id != kNoToken) {
      release();
      symbols.push_back(id);
    } else if (!append_bytes(character, symbols) && !unknown_token_.empty()) {
      if (!fuse_unknown_) release();
      waiting = unknown_id(character);
    }
  }
  release();
  return symbols;
}

void BpeModel::encode_word(
    std::string_view word, std::vector<std::int32_t>& out) const {
  if (ignore_merges_) {
    if (const auto whole = token_id(word)) {
      out.push_back(*whole);
      return;
    }
  }
  std::vector<std::int32_t> symbols = symbols_of(word);
  apply_merges(merges_, symbols);
  out.insert(out.end(), symbols.begin(), symbols.end());
}

}  // namespace fettle::text
