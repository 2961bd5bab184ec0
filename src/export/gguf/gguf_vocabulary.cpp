// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "text/bpe_model.h"

namespace fettle::exporter {
namespace {

constexpr const char* kLlamaCpp = "llama.cpp";

void put_token(
    Vocabulary& vocabulary,
    const JsonObject& tokenizer,
    const Json& id_json,
    const std::string& token,
    TokenKind kind) {
  const std::int32_t id = text::read_token_id(id_json, tokenizer.subject());
  if (id >= std::ssize(vocabulary.tokens)) {
    tokenizer.refuse(
        "model",
        fmt::format(
            "gives '{}' id {}, but the model has {} rows of embeddings",
            token,
            id,
            vocabulary.tokens.size()));
  }
  vocabulary.tokens[id] = token;
  vocabulary.kinds[id] = kind;
}

bool is_harmless_normalizer(const Json& json) {
  if (json.is_null()) return true;
  if (json.value("type", "") == "NFC") return true;
  if (json.value("type", "") != "Sequence") return false;
  return std::ranges::all_of(
      json.value("normalizers", Json::array()), is_harmless_normalizer);
}

void put_added(
    Vocabulary& vocabulary, const JsonObject& tokenizer, const Json& json) {
  const JsonObject token(json, "export", tokenizer.subject());
  const std::string content = token.string("content");
  const bool changes_text = tokenizer.has("normalizer") &&
                            !is_harmless_normalizer(tokenizer.at("normalizer"));
  for (const char* key : {"single_word", "lstrip", "rstrip", "normalized"}) {
    if (!token.boolean_or(key, false)) continue;
    if (key == std::string_view("normalized") && !changes_text) continue;
    tokenizer.refuse(
        "added_tokens",
        fmt::format("has '{}' with '{}', which GGUF can't say", content, key));
  }
  put_token(
      vocabulary,
      tokenizer,
      token.at("id"),
      content,
      token.boolean_or("special", false) ? TokenKind::kControl
                                         : TokenKind::kUserDefined);
}

std::pair<std::string, std::string> merge_pair(
    const JsonObject& model, const Json& merge) {
  if (merge.is_array() && merge.size() == 2) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  const auto text = merge.get<std::string>();
  const std::size_t space = text.find(' ');
  if (space == std::string::npos) model.refuse("merges", "has no pair");
  return {text.substr(0, space), text.substr(space + 1)};
}

bool is_comment(const Json& merge) {
  return merge.is_string() &&
         merge.get_ref<const std::string&>().starts_with("#version");
}

// One step of a pre-tokenizer in a word or two, such as "split PATTERN".
void append_steps(
    const JsonObject& tokenizer,
    const Json& step,
    std::vector<std::string>& steps) {
  const JsonObject object(step, "export", tokenizer.subject());
  const std::string type = object.string("type");
  if (type == "Sequence") {
    for (const Json& one : object.at("pretokenizers")) {
      append_steps(tokenizer, one, steps);
    }
  } else if (
      type == "Split" && object.object("pattern").has("Regex") &&
      object.string("behavior") == "Isolated" &&
      !object.boolean_or("invert", false)) {
    steps.push_back("split " + object.object("pattern").string("Regex"));
  } else if (
      type == "Digits" && object.boolean_or("individual_digits", false)) {
    steps.emplace_back("digits");
  } else if (
      type == "ByteLevel" && !object.boolean_or("add_prefix_space", true)) {
    steps.emplace_back(
        object.boolean_or("use_regex", true) ? "bytes by words" : "bytes");
  } else {
    tokenizer.refuse(
        "pre_tokenizer",
        fmt::format("has a step {} that {} lacks", step.dump(), kLlamaCpp));
  }
}

// Patterns of the families' tokenizers.
constexpr const char* kQwenWords =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kLlamaWords =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// DeepSeek's second step lists the letters of a few alphabets one by one. Its
// beginning and end tell it from others, and the Kelvin sign that no editor
// has made a K of it, which would make a range of half of Unicode.
bool is_deepseek(const std::vector<std::string>& steps) {
  return steps.size() == 7 &&
         (steps[0] == "split [\r\n]" || steps[0] == R"(split [\r\n])") &&
         steps[1].starts_with(R"(split \s?[A-Za-zµÀ-ÖØ-öø-)") &&
         steps[1].find("\u212a-\u212d") != std::string::npos &&
         steps[1].ends_with("\U0001e900-\U0001e943]+") &&
         steps[2] == R"(split \s?[!-/:-~！-／：-～‘-‟　-。]+)" &&
         steps[3] == R"(split \s+$)" &&
         steps[4] == R"(split [一-龥ࠀ-一가-퟿]+)" &&
         steps[5] == "digits" && steps[6] == "bytes";
}

}  // namespace

Vocabulary read_vocabulary(const JsonObject& tokenizer, std::int64_t rows) {
  Vocabulary vocabulary;
  for (std::int64_t i = 0; i < rows; ++i) {
    vocabulary.tokens.push_back(fmt::format("[PAD{}]", i));
  }
  vocabulary.kinds.assign(vocabulary.tokens.size(), TokenKind::kUnused);
  for (const auto& item : tokenizer.object("model").at("vocab").items()) {
    put_token(
        vocabulary, tokenizer, item.value(), item.key(), TokenKind::kNormal);
  }
  if (tokenizer.has("added_tokens")) {
    for (const Json& token : tokenizer.at("added_tokens")) {
      put_added(vocabulary, tokenizer, token);
    }
  }
  std::set<std::string_view> seen;
  for (const std::string& token : vocabulary.tokens) {
    if (token.empty() || !seen.insert(token).second) {
      tokenizer.refuse(
          "model",
          fmt::format(
              "has the token '{}' twice or empty, which {} refuses",
              token,
              kLlamaCpp));
    }
  }
  return vocabulary;
}

std::vector<std::string> read_merges(const JsonObject& model) {
  std::vector<std::string> merges;
  for (const Json& merge : model.at("merges")) {
    if (is_comment(merge)) continue;
    const auto [left, right] = merge_pair(model, merge);
    merges.push_back(left + " " + right);
  }
  return merges;
}

// llama.cpp does no NFC; text that is not in that form is rare, and its own
// converter accepts it.
std::string word_rule(const JsonObject& tokenizer) {
  if (tokenizer.has("normalizer") &&
      !is_harmless_normalizer(tokenizer.at("normalizer"))) {
    tokenizer.refuse(
        "normalizer", fmt::format("changes text, as {} does not", kLlamaCpp));
  }
  if (!tokenizer.has("pre_tokenizer")) {
    tokenizer.refuse("pre_tokenizer", "is missing; byte-level BPE has one");
  }
  std::vector<std::string> steps;
  append_steps(tokenizer, tokenizer.at("pre_tokenizer"), steps);
  const bool whole_words =
      tokenizer.object("model").boolean_or("ignore_merges", false);
  const std::string split = "split ";
  using Steps = std::vector<std::string>;
  if (steps == Steps{split + kLlamaWords, "bytes"}) {
    return whole_words ? "llama-bpe" : "smaug-bpe";
  }
  if (whole_words) {
    tokenizer.refuse("model", "sets 'ignore_merges', which is not known here");
  }
  if (steps == Steps{split + kQwenWords, "bytes"}) return "qwen2";
  if (steps == Steps{"bytes by words"}) return "gpt-2";
  if (is_deepseek(steps)) return "deepseek-llm";
  tokenizer.refuse(
      "pre_tokenizer",
      fmt::format(
          "cuts words by a rule that {} has no name for, of those known here "
          "(qwen2, gpt-2, llama-bpe, deepseek-llm)",
          kLlamaCpp));
}

std::vector<float> merge_scores(
    const JsonObject& tokenizer, const Vocabulary& vocabulary) {
  const JsonObject model = tokenizer.object("model");
  std::unordered_map<std::string, std::size_t> ids;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.kinds[i] != TokenKind::kUnused) {
      ids[vocabulary.tokens[i]] = i;
    }
  }
  std::vector<float> scores(vocabulary.tokens.size(), 0);
  std::vector<std::int64_t> splits(vocabulary.tokens.size(), 0);
  std::string last;
  float rank = 0;
  for (const Json& merge : model.at("merges")) {
    if (is_comment(merge)) continue;
    const auto [left, right] = merge_pair(model, merge);
    const auto found = ids.find(left + right);
    if (found == ids.end()) {
      model.refuse("merges", fmt::format("makes no token of '{}'", left));
    }
    if (found->first != last && splits[found->second] > 0) {
      model.refuse(
          "merges",
          fmt::format(
              "has those of '{}' at two ranks, as SentencePiece has not",
              found->first));
    }
    if (found->first != last) rank -= 1;
    last = found->first;
    scores[found->second] = rank;
    ++splits[found->second];
  }
  for (const auto& [token, id] : ids) {
    std::int64_t possible = 0;
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      // Not within a character of UTF-8.
      if ((static_cast<unsigned char>(token[cut]) & 0xc0) == 0x80) continue;
      possible +=
          ids.contains(token.substr(0, cut)) && ids.contains(token.substr(cut));
    }
    if (possible != splits[id]) {
      model.refuse(
          "merges",
          fmt::format(
              "makes '{}' in {} ways of {} that SentencePiece knows",
              token,
              splits[id],
              possible));
    }
  }
  return scores;
}

}  // namespace fettle::exporter
