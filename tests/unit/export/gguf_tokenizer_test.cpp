// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_tokenizer.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <map>

#include "core/error.h"
#include "export/gguf/gguf_vocabulary.h"
#include "packed_tiny_model.h"

namespace fettle::exporter {
namespace {

using Catch::Matchers::Contains;
using testing::TemporaryFolder;

Json pairs(const std::vector<std::pair<std::string, std::string>>& merges) {
  Json list = Json::array();
  for (const auto& [left, right] : merges) {
    list.push_back(Json::array({left, right}));
  }
  return list;
}

// Bytes a, b, c and the words that two merges make.
Json byte_level() {
  return {
      {"added_tokens",
       {{{"id", 5}, {"content", "<end>"}, {"special", true}},
        {{"id", 6}, {"content", "<word>"}, {"special", false}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"},
        {"add_prefix_space", false},
        {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"abc", 4}}},
        {"merges", pairs({{"a", "b"}, {"ab", "c"}})}}}};
}

// Mixtral's kind: bytes to fall back to, and merges by SentencePiece's scores.
Json sentence_pieces() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    vocab[fmt::format("<0x{:02X}>", byte)] = 3 + byte;
  }
  int id = 259;
  for (const char* token : {"▁a", "▁ab", "ab", "▁", "a", "b"}) {
    vocab[token] = id++;
  }
  Json added = Json::array();
  for (const auto& [content, one] :
       std::map<std::string, int>{{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}}) {
    added.push_back({{"id", one}, {"content", content}, {"special", true}});
  }
  return {
      {"added_tokens", added},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "▁"}},
          {{"type", "Replace"},
           {"pattern", {{"String", " "}}},
           {"content", "▁"}}}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair", Json::array()},
        {"special_tokens",
         {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder", {{"type", "Fuse"}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges",
         pairs({{"▁", "a"}, {"▁a", "b"}, {"▁", "ab"}, {"a", "b"}})}}}};
}

using Keys = std::map<std::string, GgufValue>;

Keys tokenizer_keys(
    const Json& tokenizer,
    std::int64_t rows,
    const ExportOptions& options = {},
    const Json& config = Json::object()) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "tokenizer.json") << tokenizer.dump();
  std::ofstream(folder.path() / "chat_template.jinja") << "{{ bos_token }}";
  Json changes = {{"vocab_size", rows}};
  changes.update(config);
  const GgufKeys keys = gguf_tokenizer_keys(
      folder.path(),
      testing::tiny_config(testing::wide("qwen3_moe", changes)),
      options);
  return {keys.begin(), keys.end()};
}

template <typename T>
T value(const Keys& keys, const std::string& name) {
  return std::get<T>(keys.at("tokenizer." + name));
}

TEST_CASE("Byte-level tokenizers are told by tokens, kinds and merges") {
  const Keys keys = tokenizer_keys(
      byte_level(), 8, {}, {{"eos_token_id", {5, 6}}, {"pad_token_id", 0}});
  REQUIRE(value<std::string>(keys, "ggml.model") == "gpt2");
  REQUIRE(value<std::string>(keys, "ggml.pre") == "gpt-2");
  REQUIRE(
      value<std::vector<std::string>>(keys, "ggml.tokens") ==
      std::vector<std::string>{
          "a", "b", "c", "ab", "abc", "<end>", "<word>", "[PAD7]"});
  REQUIRE(
      value<std::vector<std::int32_t>>(keys, "ggml.token_type") ==
      std::vector<std::int32_t>{1, 1, 1, 1, 1, 3, 4, 5});
  REQUIRE(
      value<std::vector<std::string>>(keys, "ggml.merges") ==
      std::vector<std::string>{"a b", "ab c"});
  REQUIRE(value<std::uint32_t>(keys, "ggml.bos_token_id") == 1);
  REQUIRE(value<std::uint32_t>(keys, "ggml.eos_token_id") == 5);
  REQUIRE(value<std::uint32_t>(keys, "ggml.eot_token_id") == 6);
  REQUIRE(value<std::uint32_t>(keys, "ggml.padding_token_id") == 0);
  REQUIRE_FALSE(value<bool>(keys, "ggml.add_bos_token"));
  REQUIRE(value<std::string>(keys, "chat_template") == "{{ bos_token }}");
}

const std::string kQwen =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json split_by(const std::string& pattern) {
  return {
      {"type", "Split"},
      {"pattern", {{"Regex", pattern}}},
      {"behavior", "Isolated"},
      {"invert", false}};
}

// byte_level() with these steps before its bytes.
Json with_steps(std::vector<Json> steps) {
  steps.push_back(
      {{"type", "ByteLevel"},
       {"add_prefix_space", false},
       {"use_regex", false}});
  Json tokenizer = byte_level();
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
  return tokenizer;
}

std::string rule_of(const Json& tokenizer) {
  return word_rule(JsonObject(tokenizer, "test", "tokenizer.json"));
}

TEST_CASE("Rules for words have names") {
  SECTION("qwen2, with NFC") {
    Json tokenizer = with_steps({split_by(kQwen)});
    tokenizer["normalizer"] = {{"type", "NFC"}};
    REQUIRE(rule_of(tokenizer) == "qwen2");
  }
  SECTION("llama-bpe") {
    std::string threes = kQwen;
    threes.replace(threes.find(R"(|\p{N}|)"), 7, R"(|\p{N}{1,3}|)");
    Json tokenizer = with_steps({split_by(threes)});
    REQUIRE(rule_of(tokenizer) == "smaug-bpe");
    tokenizer["model"]["ignore_merges"] = true;
    REQUIRE(rule_of(tokenizer) == "llama-bpe");
  }
  SECTION("deepseek-llm") {
    const std::string letters =
        "\\s?[A-Za-zµÀ-ÖØ-öø-ƺ\u2128\u212a-\u212d\U0001e900-\U0001e943]+";
    const Json tokenizer = with_steps(
        {split_by("[\r\n]"),
         split_by(letters),
         split_by(R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)"),
         split_by(R"(\s+$)"),
         split_by(R"([一-龥ࠀ-一가-퟿]+)"),
         {{"type", "Digits"}, {"individual_digits", true}}});
    REQUIRE(rule_of(tokenizer) == "deepseek-llm");
  }
}

TEST_CASE("Rules for words that have no name are refused") {
  REQUIRE_THROWS_WITH(
      rule_of(with_steps({split_by(R"(\w+)")})), Contains("has no name for"));
  REQUIRE_THROWS_WITH(
      rule_of(with_steps({{{"type", "Whitespace"}}})), Contains("Whitespace"));
  Json tokenizer = byte_level();
  tokenizer["model"]["ignore_merges"] = true;
  REQUIRE_THROWS_WITH(rule_of(tokenizer), Contains("'ignore_merges'"));
  tokenizer = byte_level();
  tokenizer["normalizer"] = {{"type", "Lowercase"}};
  REQUIRE_THROWS_WITH(rule_of(tokenizer), Contains("changes text"));
  tokenizer = byte_level();
  tokenizer["pre_tokenizer"] = nullptr;
  REQUIRE_THROWS_WITH(rule_of(tokenizer), Contains("is missing"));
}

TEST_CASE("SentencePiece's BPE is told by scores") {
  const Keys keys = tokenizer_keys(sentence_pieces(), 265);
  REQUIRE(value<std::string>(keys, "ggml.model") == "llama");
  REQUIRE(value<bool>(keys, "ggml.add_space_prefix"));
  REQUIRE(value<bool>(keys, "ggml.add_bos_token"));
  REQUIRE(value<std::uint32_t>(keys, "ggml.unknown_token_id") == 0);
  const auto scores = value<std::vector<float>>(keys, "ggml.scores");
  REQUIRE(scores[259] == -1);  // ▁a
  REQUIRE(scores[260] == -2);  // ▁ab, by two ways
  REQUIRE(scores[261] == -3);
  REQUIRE(scores[262] == 0);
  const auto kinds = value<std::vector<std::int32_t>>(keys, "ggml.token_type");
  REQUIRE(kinds[0] == 2);
  REQUIRE(kinds[1] == 3);
  REQUIRE(kinds[3] == 6);
  REQUIRE(kinds[259] == 1);
}

TEST_CASE("Gemma's tokenizer is told by its name and its merges") {
  Json gemma = sentence_pieces();
  gemma["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  gemma["pre_tokenizer"] = {
      {"type", "Split"},
      {"pattern", {{"String", " "}}},
      {"behavior", "MergedWithPrevious"},
      {"invert", false}};
  const Keys keys = tokenizer_keys(gemma, 265);
  REQUIRE(value<std::string>(keys, "ggml.model") == "gemma4");
  REQUIRE_FALSE(value<bool>(keys, "ggml.add_space_prefix"));
  REQUIRE(value<bool>(keys, "ggml.add_bos_token"));
  REQUIRE(
      value<std::vector<std::string>>(keys, "ggml.merges") ==
      std::vector<std::string>{"▁ a", "▁a b", "▁ ab", "a b"});
  REQUIRE_FALSE(keys.contains("tokenizer.ggml.scores"));
  const auto kinds = value<std::vector<std::int32_t>>(keys, "ggml.token_type");
  REQUIRE(kinds[3] == 6);
}

void require_refusal(
    const Json& tokenizer, std::int64_t rows, const std::string& message) {
  REQUIRE_THROWS_AS(tokenizer_keys(tokenizer, rows), UserError);
  REQUIRE_THROWS_WITH(tokenizer_keys(tokenizer, rows), Contains(message));
}

TEST_CASE("Tokenizers that llama.cpp treats otherwise are refused by name") {
  Json bytes = byte_level();
  Json pieces = sentence_pieces();
  SECTION("more tokens than rows") {
    require_refusal(bytes, 6, "the model has 6 rows");
  }
  SECTION("an added token that strips") {
    bytes["added_tokens"][0]["lstrip"] = true;
    require_refusal(bytes, 8, "has '<end>' with 'lstrip'");
  }
  SECTION("an added token of normalized text") {
    pieces["added_tokens"][0]["normalized"] = true;
    require_refusal(pieces, 265, "with 'normalized'");
  }
  SECTION("merges at two ranks") {
    pieces["model"]["merges"] =
        pairs({{"▁", "a"}, {"▁a", "b"}, {"a", "b"}, {"▁", "ab"}});
    require_refusal(pieces, 265, "at two ranks");
  }
  SECTION("a merge that SentencePiece has and the file has not") {
    pieces["model"]["merges"] = pairs({{"▁", "a"}, {"▁a", "b"}, {"a", "b"}});
    require_refusal(pieces, 265, "makes '▁ab' in 1 ways of 2");
  }
  SECTION("spaces put elsewhere") {
    pieces["normalizer"] = nullptr;
    pieces["pre_tokenizer"] = {
        {"type", "Metaspace"},
        {"replacement", "▁"},
        {"prepend_scheme", "first"},
        {"split", false}};
    require_refusal(pieces, 265, "export with --nearest");
    const Keys keys = tokenizer_keys(pieces, 265, {.nearest = true});
    REQUIRE(value<bool>(keys, "ggml.add_space_prefix"));
    pieces["pre_tokenizer"] = nullptr;
    require_refusal(pieces, 265, "treats spaces in a way");
  }
  SECTION("other tokens around a text") {
    pieces["post_processor"]["special_tokens"]["<s>"]["ids"] = {2};
    require_refusal(pieces, 265, "begins every text by other tokens");
  }
  SECTION("no end") {
    REQUIRE_THROWS_WITH(
        tokenizer_keys(bytes, 8, {}, {{"eos_token_id", nullptr}}),
        Contains("'eos_token_id' is missing"));
  }
}

TEST_CASE("A folder without a tokenizer is refused") {
  const TemporaryFolder folder;
  REQUIRE_THROWS_WITH(
      gguf_tokenizer_keys(
          folder.path(), testing::tiny_config(testing::wide("olmoe")), {}),
      Contains("tokenizer.json"));
}

}  // namespace
}  // namespace fettle::exporter
