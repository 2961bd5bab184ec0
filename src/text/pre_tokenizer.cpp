// SPDX-License-Identifier: Apache-2.0
#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <optional>
#include <utility>

#include "core/error.h"
#include "text/byte_alphabet.h"
#include "text/character_sets.h"
#include "text/metaspace.h"
#include "text/onig_pattern.h"
#include "text/pattern.h"
#include "text/split.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

// Radford et al. 2019: the words of GPT-2.
constexpr std::string_view kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|\s+(?!\S)|\s+)";

// The reference's `Punctuation` follows the categories of Unicode 8, so what
// became punctuation later is left out, and two characters that changed sides
// are taken in.
constexpr std::string_view kPunctuation =
    "(?![\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b4e}\\x{1b4f}"
    "\\x{1b7d}-\\x{1b7f}\\x{2e43}-\\x{2e4f}\\x{2e52}-\\x{2e5d}\\x{10d6e}"
    "\\x{10ead}\\x{10f55}-\\x{10f59}\\x{10f86}-\\x{10f89}"
    "\\x{113d4}-\\x{113d8}\\x{1144b}-\\x{1144f}\\x{1145a}-\\x{1145d}"
    "\\x{11660}-\\x{1166c}\\x{116b9}\\x{1183b}\\x{11944}-\\x{11946}\\x{119e2}"
    "\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11aa2}\\x{11b00}-\\x{11b09}\\x{11be1}"
    "\\x{11c41}-\\x{11c45}\\x{11c70}\\x{11c71}\\x{11ef7}\\x{11ef8}"
    "\\x{11f43}-\\x{11f4f}\\x{11fff}\\x{12ff1}\\x{12ff2}"
    "\\x{16d6d}-\\x{16d6f}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e5ff}\\x{1e95e}"
    "\\x{1e95f}])[\\p{P}!-/:-@\\[-`{-~\\x{166d}\\x{111c9}]";

// Rewrites every word; `map` appends what a word becomes to the text.
template <typename Map>
void map_words(Words& words, Map map) {
  std::string text;
  text.reserve(words.text.size() + words.text.size() / 4);
  words.at_start =
      words.at_start && !words.spans.empty() && words.spans.front().begin == 0;
  for (Span& span : words.spans) {
    const std::size_t begin = text.size();
    map(words.view(span), text);
    span = {begin, text.size()};
  }
  words.text = std::move(text);
}

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Split> split)
      : add_prefix_space_(add_prefix_space), split_(std::move(split)) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      append_utf8(characters_[byte], kByteAlphabet[byte]);
    }
  }

  void apply(Words& words) const override {
    if (add_prefix_space_) {
      map_words(words, [](std::string_view word, std::string& out) {
        if (word.front() != ' ') out += ' ';
        out += word;
      });
    }
    if (split_) split_->apply(words);
    map_words(words, [this](std::string_view word, std::string& out) {
      for (const char byte : word) {
        out += characters_[static_cast<unsigned char>(byte)];
      }
    });
  }

 private:
  bool add_prefix_space_;
  std::optional<Split> split_;
  std::array<std::string, 256> characters_;
};

class PreTokenizerSequence : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(
      std::vector<std::unique_ptr<PreTokenizer>> steps)
      : steps_(std::move(steps)) {}

  void apply(Words& words) const override {
    for (const auto& step : steps_) step->apply(words);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

SplitBehavior read_behavior(
    const JsonObject& component, const std::string& name) {
  static const std::map<std::string, SplitBehavior> kNames = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  const auto found = kNames.find(name);
  if (found == kNames.end()) {
    component.refuse("behavior", fmt::format("'{}' is not supported", name));
  }
  return found->second;
}

std::unique_ptr<PreTokenizer> split_at(
    const std::string& pattern,
    const std::string& subject,
    SplitOptions options) {
  return std::make_unique<Split>(Regex(pattern, subject), options);
}

std::unique_ptr<PreTokenizer> make_byte_level(const JsonObject& component) {
  std::optional<Split> split;
  if (component.boolean_or("use_regex", true)) {
    split.emplace(
        Regex(
            translate_onig(kGpt2Words, component.subject()),
            component.subject()),
        SplitOptions{});
  }
  return std::make_unique<ByteLevel>(
      component.boolean_or("add_prefix_space", true), std::move(split));
}

std::unique_ptr<PreTokenizer> make_sequence(
    const JsonObject& component, const std::string& subject) {
  const Json& list = component.at("pretokenizers");
  if (!list.is_array()) component.refuse("pretokenizers", "must be a list");
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  for (const Json& item : list) {
    steps.push_back(make_pre_tokenizer(item, subject));
  }
  return std::make_unique<PreTokenizerSequence>(std::move(steps));
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(
    const Json& value, const std::string& subject) {
  if (value.is_null()) {
    return std::make_unique<PreTokenizerSequence>(
        std::vector<std::unique_ptr<PreTokenizer>>());
  }
  const JsonObject component(value, "tokenizer", subject + " 'pre_tokenizer'");
  const std::string& name = component.subject();
  const std::string type = component.string("type");
  if (type == "Sequence") return make_sequence(component, subject);
  if (type == "ByteLevel") return make_byte_level(component);
  if (type == "Metaspace") return make_metaspace_pre_tokenizer(component);
  if (type == "Split") {
    return std::make_unique<Split>(
        read_pattern(component, "pattern"),
        SplitOptions{
            read_behavior(component, component.string("behavior")),
            component.boolean_or("invert", false)});
  }
  if (type == "Digits") {
    return split_at(
        translate_onig("\\p{N}", name),
        name,
        {component.boolean_or("individual_digits", false)
             ? SplitBehavior::kIsolated
             : SplitBehavior::kContiguous});
  }
  if (type == "Punctuation") {
    return split_at(
        std::string(kPunctuation),
        name,
        {read_behavior(
            component, component.string_or("behavior", "Isolated"))});
  }
  if (type == "WhitespaceSplit") {
    return split_at(
        translate_onig("\\s", name), name, {SplitBehavior::kRemoved});
  }
  if (type == "Whitespace") {
    const std::string word = rust_word_members();
    return split_at(
        fmt::format("[{0}]+|[^{0}\\p{{wspace}}]+", word),
        name,
        {SplitBehavior::kRemoved, true});
  }
  component.refuse("type", fmt::format("'{}' is not supported", type));
}

}  // namespace fettle::text
