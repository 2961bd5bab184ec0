// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <catch2/catch.hpp>
#include <thread>

#include "tests/unit/text/tokenizer_files.h"
#include "text/apply_merges.h"
#include "text/word_cache.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;
using Ids = std::vector<std::int32_t>;

TEST_CASE("merges go by rank, leftmost first") {
  const Tokenizer t = make_tokenizer(letters_file());
  CHECK(t.encode("") == Ids{});
  CHECK(t.encode("abc") == Ids{7});
  CHECK(t.encode("abab") == Ids{6, 6});
  // "d e" has a lower rank than "c d".
  CHECK(t.encode("cde") == Ids{2, 8});
  CHECK(t.encode("ccd") == Ids{2, 9});
  // What the vocabulary lacks and nothing stands for is dropped.
  CHECK(t.encode("axb") == Ids{6});
  CHECK(t.vocab_size() == 12);
  CHECK(t.token_id("abc") == 7);
  CHECK(t.token_id("<s>") == 10);
  CHECK(t.token_id("zz") == std::nullopt);
}

TEST_CASE("long words merge like short ones") {
  const Tokenizer t = make_tokenizer(letters_file());
  Ids expected;
  std::string text;
  for (int i = 0; i < 5000; ++i) {
    text += "abcde";
    expected.insert(expected.end(), {7, 8});
  }
  CHECK(t.encode(text) == expected);
  MergeTable merges(1);
  merges.set(0, 0, {0, 1});
  Ids symbols(49, 0);  // one above the length that is scanned
  apply_merges(merges, symbols);
  Ids pairs(24, 1);
  pairs.push_back(0);
  CHECK(symbols == pairs);
}

TEST_CASE("both spellings of merges are read, the last of two ranks counts") {
  Json file = letters_file();
  file["model"]["merges"] = {"#version: 0.2", "a b", "ab c", "d e", "c d"};
  const Tokenizer t = make_tokenizer(file);
  CHECK(t.encode("abcde") == Ids{7, 8});
  file["model"]["merges"] = {"d e", "c d", "d e"};
  CHECK(make_tokenizer(file).encode("cde") == Ids{9, 4});
}

TEST_CASE("added tokens are found before anything else") {
  Json file = letters_file();
  const Tokenizer t = make_tokenizer(file);
  CHECK(t.encode("a<s>b<tool>") == Ids{0, 10, 1, 11});
  CHECK(t.encode("<s><s>") == Ids{10, 10});
  CHECK(t.encode("<to<s") == Ids{});
  CHECK(t.decode(Ids{0, 10, 11}) == "a<tool>");
  CHECK(t.decode(Ids{0, 10, 99, -1}, {false}) == "a<s>");
  file["added_tokens"][0]["lstrip"] = true;
  file["added_tokens"][0]["rstrip"] = true;
  CHECK(make_tokenizer(file).encode("a  <s> \u2003 b") == Ids{0, 10, 1});
  file = letters_file();
  file["added_tokens"][1]["single_word"] = true;
  CHECK(make_tokenizer(file).encode("a<tool>") == Ids{0});
  CHECK(make_tokenizer(file).encode("<tool>a") == Ids{0});
  CHECK(make_tokenizer(file).encode("-<tool>-") == Ids{11});
}

TEST_CASE("normalized added tokens are found in the normalized text") {
  Json file = letters_file();
  file["normalizer"] = {{"type", "Lowercase"}};
  file["added_tokens"][1] = {
      {"id", 11}, {"content", "DEC"}, {"normalized", true}};
  const Tokenizer t = make_tokenizer(file);
  CHECK(t.encode("Adec") == Ids{0, 11});
  CHECK(t.decode(Ids{11}) == "dec");
}

TEST_CASE("the longest of two added tokens wins") {
  Json file = letters_file();
  file["added_tokens"].push_back(
      {{"id", 12}, {"content", "<tool>a"}, {"normalized", false}});
  CHECK(make_tokenizer(file).encode("<tool>ab") == Ids{12, 1});
}

TEST_CASE("unknown characters become unk, fused or not, or bytes") {
  Json file = letters_file();
  file["model"]["vocab"]["?"] = 12;
  file["added_tokens"] = Json::array();
  file["model"]["vocab"]["<0xC3>"] = 10;
  file["model"]["vocab"]["<0xA9>"] = 11;
  file["model"]["unk_token"] = "?";
  CHECK(make_tokenizer(file).encode("axy\u00e9") == Ids{0, 12, 12, 12});
  file["model"]["fuse_unk"] = true;
  CHECK(make_tokenizer(file).encode("axya") == Ids{0, 12, 0});
  file["model"]["byte_fallback"] = true;
  CHECK(make_tokenizer(file).encode("a\u00e9x") == Ids{0, 10, 11, 12});
  file["model"]["unk_token"] = "gone";
  const Tokenizer t = make_tokenizer(file);
  CHECK(t.encode("a\u00e9") == Ids{0, 10, 11});
  CHECK_THROWS_WITH(t.encode("x"), Contains("unk_token 'gone' for 'x'"));
}

TEST_CASE("ignore_merges takes whole words first") {
  Json file = letters_file();
  file["model"]["vocab"]["ccc"] = 10;
  file["added_tokens"] = Json::array();
  CHECK(make_tokenizer(file).encode("ccc") == Ids{2, 2, 2});
  file["model"]["ignore_merges"] = true;
  CHECK(make_tokenizer(file).encode("ccc") == Ids{10});
}

TEST_CASE("post-processors add ids on both sides, on request") {
  Json file = letters_file();
  file["post_processor"] = Json::parse(R"({"type": "Sequence", "processors": [
    {"type": "ByteLevel"},
    {"type": "TemplateProcessing",
     "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
     "special_tokens": {"<s>": {"ids": [10]}}},
    {"type": "BertProcessing", "sep": ["c", 2], "cls": ["d", 3]}]})");
  const Tokenizer t = make_tokenizer(file);
  CHECK(t.encode("a") == Ids{3, 10, 0, 2});
  CHECK(t.encode("a", {false}) == Ids{0});
  CHECK(t.ids_before().size() == 2);
  CHECK(t.ids_after().front() == 2);
}

TEST_CASE("ill-formed text is read as replacement characters") {
  Json file = letters_file();
  file["model"]["vocab"]["\ufffd"] = 10;
  file["added_tokens"] = Json::array();
  CHECK(
      make_tokenizer(file).encode("a\xff\xe2\x82"
                                  "b") == Ids{0, 10, 10, 1});
}

TEST_CASE("one tokenizer serves many threads") {
  const Tokenizer t = make_tokenizer(letters_file());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "abc de<s>";
  const Ids expected = t.encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&] { result = t.encode(text); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) CHECK(result == expected);
}

TEST_CASE("the word cache returns what was encoded, also after collisions") {
  WordCache cache(1);  // a single entry
  int calls = 0;
  const auto encode = [&](std::string_view word, Ids& out) {
    ++calls;
    out.push_back(static_cast<std::int32_t>(word.size()));
  };
  Ids out;
  for (const char* word : {"a", "a", "bb", "a", "a"}) {
    cache.append(word, out, encode);
  }
  CHECK(out == Ids{1, 1, 2, 1, 1});
  CHECK(calls == 3);
  const std::string huge(WordCache::kMaxWordBytes + 1, 'x');
  cache.append(huge, out, encode);
  cache.append(huge, out, encode);
  CHECK(calls == 5);
}

TEST_CASE("a tokenizer is loaded from a model folder") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(
      Tokenizer::load(folder.path()), Contains("tokenizer.json: is missing"));
  folder.write("tokenizer.json", letters_file().dump());
  CHECK(Tokenizer::load(folder.path()).encode("abc") == Ids{7});
}
