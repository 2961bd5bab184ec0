// SPDX-License-Identifier: Apache-2.0
#include "text/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "text/character_sets.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

bool is_word_at(const Regex& word, std::string_view text, std::size_t at) {
  Regex::Matcher matcher(word);
  Span match{0, 0};
  return matcher.find(text.substr(at, utf8_length(text[at])), 0, match);
}

// Whether a word character touches the span from outside.
bool touches_word(const Regex& word, std::string_view text, Span span) {
  return (span.begin > 0 &&
          is_word_at(word, text, previous_character(text, span.begin))) ||
         (span.end < text.size() && is_word_at(word, text, span.end));
}

std::size_t strip_left(
    std::string_view text, std::size_t begin, std::size_t floor) {
  while (begin > floor) {
    const std::size_t at = previous_character(text, begin);
    if (!is_white_space(decode_at(text, at))) break;
    begin = at;
  }
  return begin;
}

std::size_t strip_right(std::string_view text, std::size_t end) {
  while (end < text.size() && is_white_space(decode_at(text, end))) {
    end += utf8_length(text[end]);
  }
  return end;
}

AddedToken read_token(const JsonObject& item) {
  AddedToken token;
  token.content = item.string("content");
  token.id = read_token_id(item.at("id"), item.subject());
  token.single_word = item.boolean_or("single_word", false);
  token.lstrip = item.boolean_or("lstrip", false);
  token.rstrip = item.boolean_or("rstrip", false);
  token.special = item.boolean_or("special", false);
  token.normalized = item.boolean_or("normalized", !token.special);
  if (token.content.empty()) item.refuse("content", "is empty");
  return token;
}

}  // namespace

void TokenMatcher::add(std::string_view pattern, const AddedToken* token) {
  std::uint32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    const auto next = static_cast<std::uint32_t>(ends_.size());
    const auto [edge, added] =
        edges_.try_emplace(std::uint64_t{node} << 8 | byte, next);
    if (added) ends_.push_back(nullptr);
    node = edge->second;
  }
  if (ends_[node] == nullptr) ends_[node] = token;
  starts_[static_cast<unsigned char>(pattern.front())] = true;
}

std::optional<TokenMatcher::Found> TokenMatcher::longest_at(
    std::string_view text, std::size_t at) const {
  std::optional<Found> found;
  std::uint32_t node = 0;
  while (at < text.size()) {
    const auto edge = edges_.find(
        std::uint64_t{node} << 8 | static_cast<unsigned char>(text[at]));
    if (edge == edges_.end()) break;
    node = edge->second;
    ++at;
    if (ends_[node] != nullptr) found = {at, ends_[node]};
  }
  return found;
}

std::vector<TextPart> TokenMatcher::split(
    std::string_view text, const Regex& word) const {
  std::vector<TextPart> parts;
  std::size_t done = 0;
  std::size_t at = 0;
  while (!empty() && at < text.size()) {
    if (!starts_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const auto found = longest_at(text, at);
    if (!found) {
      ++at;
      continue;
    }
    Span span{at, found->end};
    const AddedToken& token = *found->token;
    at = found->end;
    if (token.single_word && touches_word(word, text, span)) continue;
    if (token.lstrip) span.begin = strip_left(text, span.begin, done);
    if (token.rstrip) span.end = strip_right(text, span.end);
    if (done < span.begin) parts.push_back({{done, span.begin}, -1});
    parts.push_back({span, token.id});
    done = span.end;
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, -1});
  return parts;
}

AddedTokens::AddedTokens(
    const JsonObject& tokenizer,
    const BpeModel& model,
    const Normalizer& normalizer)
    : subject_(tokenizer.subject()),
      word_(fmt::format("[{}]", rust_word_members()), subject_) {
  if (tokenizer.has("added_tokens")) {
    const Json& list = tokenizer.at("added_tokens");
    if (!list.is_array()) tokenizer.refuse("added_tokens", "must be a list");
    read(list, model);
  }
  index(normalizer);
}

void AddedTokens::read(const Json& list, const BpeModel& model) {
  tokens_.reserve(list.size());
  for (const Json& item : list) {
    const AddedToken token =
        read_token(JsonObject(item, "tokenizer", subject_ + " 'added_tokens'"));
    check_id(token, model);
    tokens_.push_back(token);
    ids_.emplace(token.id, &tokens_.back());
    id_end_ = std::max<std::int64_t>(id_end_, token.id + 1);
  }
}

// The reference gives a new token the next free id, whatever the file says, so
// a file that says something else means two things at once.
void AddedTokens::check_id(
    const AddedToken& token, const BpeModel& model) const {
  const auto refuse = [&](const std::string& why) {
    throw UserError(
        "tokenizer",
        subject_ + " 'added_tokens'",
        fmt::format("'{}' has id {}, {}", token.content, token.id, why));
  };
  if (const AddedToken* other = by_id(token.id)) {
    refuse(fmt::format("which '{}' has already", other->content));
  }
  if (const AddedToken* other = by_content(token.content)) {
    refuse(fmt::format("but also id {}", other->id));
  }
  const auto known = model.token_id(token.content);
  const std::int64_t expected =
      known ? *known : std::max<std::int64_t>(model.size(), id_end_);
  if (token.id != expected) {
    refuse(fmt::format("but by the vocabulary it would be {}", expected));
  }
}

void AddedTokens::index(const Normalizer& normalizer) {
  for (AddedToken& token : tokens_) {
    NormalizedText spelling{token.content, true};
    if (token.normalized) normalizer.apply(spelling);
    if (spelling.text.empty()) {
      throw UserError(
          "tokenizer",
          subject_ + " 'added_tokens'",
          fmt::format("'{}' is empty once normalized", token.content));
    }
    token.spelling = std::move(spelling.text);
    const AddedToken* namesake = by_content(token.spelling);
    token.left_out = namesake != nullptr && namesake->special;
  }
  // If two tokens normalize to the same text, the special one comes first.
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokens_) {
      if (token.special != special) continue;
      (token.normalized ? normalized_ : raw_).add(token.spelling, &token);
    }
  }
}

const AddedToken* AddedTokens::by_id(std::int32_t id) const {
  const auto found = ids_.find(id);
  return found == ids_.end() ? nullptr : found->second;
}

const AddedToken* AddedTokens::by_content(std::string_view content) const {
  const auto found =
      std::find_if(tokens_.begin(), tokens_.end(), [&](const AddedToken& t) {
        return t.content == content;
      });
  return found == tokens_.end() ? nullptr : &*found;
}

}  // namespace fettle::text
