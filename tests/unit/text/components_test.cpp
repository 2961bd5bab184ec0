// SPDX-License-Identifier: Apache-2.0
// Normalizers, pre-tokenizers and decoders, each on a case told by hand.
#include <catch2/catch.hpp>

#include "tests/unit/text/tokenizer_files.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

using namespace fettle;
using namespace fettle::text;
using List = std::vector<std::string>;

namespace {

std::string normalize(const char* json, const std::string& text) {
  NormalizedText part{text, true};
  make_normalizer(Json::parse(json), "t")->apply(part);
  return part.text;
}

List words_of(const char* json, const std::string& text, bool start = true) {
  Words words{text, {{0, text.size()}}, start};
  make_pre_tokenizer(Json::parse(json), "t")->apply(words);
  List list;
  for (const Span span : words.spans) list.emplace_back(words.view(span));
  return list;
}

std::string decoded(const char* json, List pieces) {
  make_decoder(Json::parse(json), "t")->apply(pieces);
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

}  // namespace

TEST_CASE("Unicode forms") {
  CHECK(normalize(R"({"type":"NFC"})", "e\u0301") == "\u00e9");
  CHECK(normalize(R"({"type":"NFD"})", "\u00e9") == "e\u0301");
  CHECK(normalize(R"({"type":"NFKC"})", "\ufb01e\u0301") == "fi\u00e9");
  CHECK(normalize(R"({"type":"NFKD"})", "\ufb01\u00e9") == "fie\u0301");
  CHECK(normalize(R"({"type":"NFC"})", std::string("a\0b", 3)).size() == 3);
  // The reference doesn't know this one's decomposition.
  CHECK(
      normalize(R"({"type":"NFKD"})", "\u00e9\u32ff\u00e9") ==
      "e\u0301\u32ffe\u0301");
  CHECK(normalize("null", "\ufb01") == "\ufb01");
}

TEST_CASE("other normalizers") {
  CHECK(
      normalize(R"({"type":"Lowercase"})", "A\u0130\u03a3\U00010d50") ==
      "ai\u0307\u03c3\U00010d70");
  CHECK(normalize(R"({"type":"Prepend","prepend":"_"})", "a") == "_a");
  CHECK(normalize(R"({"type":"Prepend","prepend":"_"})", "") == "");
  CHECK(normalize(R"({"type":"Strip"})", " \u3000a b\t") == "a b");
  CHECK(normalize(R"({"type":"Strip","strip_left":false})", " a ") == " a");
  CHECK(normalize(R"({"type":"Strip","strip_right":false})", " a ") == "a ");
  CHECK(normalize(R"({"type":"Strip"})", "  ") == "");
  CHECK(
      normalize(
          R"({"type":"Replace","pattern":{"String":"."},"content":"$1"})",
          "a.b.") == "a$1b$1");
  CHECK(
      normalize(
          R"({"type":"Replace","pattern":{"Regex":" +"},"content":""})",
          "a  b ") == "ab");
  CHECK(
      normalize(
          R"({"type":"Sequence","normalizers":[
              {"type":"Prepend","prepend":"_"},
              {"type":"Replace","pattern":{"String":" "},"content":"_"}]})",
          "a b") == "_a_b");
}

TEST_CASE("the five behaviours of Split, and their inverses") {
  const auto split = [](const std::string& behavior, bool invert) {
    const Json json = {
        {"type", "Split"},
        {"pattern", {{"String", "-"}}},
        {"behavior", behavior},
        {"invert", invert}};
    return words_of(json.dump().c_str(), "the-final--countdown-");
  };
  CHECK(split("Removed", false) == List{"the", "final", "countdown"});
  CHECK(split("Removed", true) == List{"-", "-", "-", "-"});
  CHECK(
      split("Isolated", false) ==
      List{"the", "-", "final", "-", "-", "countdown", "-"});
  CHECK(
      split("MergedWithPrevious", false) ==
      List{"the-", "final-", "-", "countdown-"});
  CHECK(
      split("MergedWithPrevious", true) ==
      List{"the", "-final", "-", "-countdown", "-"});
  CHECK(
      split("MergedWithNext", false) ==
      List{"the", "-final", "-", "-countdown", "-"});
  CHECK(
      split("MergedWithNext", true) ==
      List{"the-", "final-", "-", "countdown-"});
  CHECK(
      split("Contiguous", false) ==
      List{"the", "-", "final", "--", "countdown", "-"});
}

TEST_CASE("ByteLevel") {
  CHECK(
      words_of(
          R"({"type":"ByteLevel","add_prefix_space":false})",
          "Hello  it's 42\u00e9\n") == List{
                                           "Hello",
                                           "\u0120",
                                           "\u0120it",
                                           "'s",
                                           "\u012042",
                                           "\u00c3\u00a9",
                                           "\u010a"});
  CHECK(
      words_of(R"({"type":"ByteLevel","use_regex":false})", "a b") ==
      List{"\u0120a\u0120b"});
  CHECK(
      words_of(R"({"type":"ByteLevel","use_regex":false})", " a") ==
      List{"\u0120a"});
  CHECK(
      decoded(
          R"({"type":"ByteLevel"})",
          {"\u0120a", "\u00c3", "\u00a9", "\u6f22", "\u00ff"}) ==
      " a\u00e9\u6f22\ufffd");
}

TEST_CASE("Metaspace, new and old spelling") {
  const char* first =
      R"({"type":"Metaspace","replacement":"_","prepend_scheme":"first"})";
  CHECK(words_of(first, "a b") == List{"_a", "_b"});
  CHECK(words_of(first, "a b", false) == List{"a", "_b"});
  CHECK(words_of(first, " a") == List{"_a"});
  const char* old =
      R"({"type":"Metaspace","replacement":"_","add_prefix_space":true})";
  CHECK(words_of(old, "a  b", false) == List{"_a", "_", "_b"});
  CHECK(
      words_of(
          R"({"type":"Metaspace","replacement":"_",
                     "add_prefix_space":false})",
          "a b") == List{"a", "_b"});
  CHECK(
      words_of(
          R"({"type":"Metaspace","replacement":"\u2581",
                     "prepend_scheme":"always","split":false})",
          "a b") == List{"\u2581a\u2581b"});
  CHECK(decoded(old, {"_a", "_b"}) == "a b");
  CHECK(
      decoded(
          R"({"type":"Metaspace","replacement":"_",
                    "prepend_scheme":"never"})",
          {"_a", "_b"}) == " a b");
}

TEST_CASE("what was cut off at the start is remembered") {
  Json file = letters_file();
  file["model"]["vocab"] = {{"a", 0}, {"_", 1}};
  file["model"]["merges"] = Json::array();
  file["added_tokens"] = {{{"id", 2}, {"content", "<s>"}, {"special", true}}};
  file["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "first"}};
  using Ids = std::vector<std::int32_t>;
  CHECK(make_tokenizer(file).encode("a<s>a") == Ids{1, 0, 2, 0});
  CHECK(make_tokenizer(file).encode("<s>a") == Ids{2, 0});
  file["normalizer"] = {{"type", "Strip"}};
  CHECK(make_tokenizer(file).encode(" a") == Ids{0});
  CHECK(make_tokenizer(file).encode("a ") == Ids{1, 0});
  file["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", ""}};
  CHECK(make_tokenizer(file).encode(" a") == Ids{0});
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "WhitespaceSplit"}}, file["pre_tokenizer"]}}};
  CHECK(make_tokenizer(file).encode(" a") == Ids{0});
  CHECK(make_tokenizer(file).encode("a a") == Ids{1, 0, 0});
}

TEST_CASE("other pre-tokenizers") {
  CHECK(
      words_of(R"({"type":"Digits","individual_digits":true})", "a12") ==
      List{"a", "1", "2"});
  CHECK(words_of(R"({"type":"Digits"})", "a12\u0663") == List{"a", "12\u0663"});
  CHECK(
      words_of(R"({"type":"Punctuation"})", "a,\u3002$b\u061d") ==
      List{"a", ",", "\u3002", "$", "b\u061d"});
  CHECK(
      words_of(R"({"type":"Punctuation","behavior":"Removed"})", "a,b") ==
      List{"a", "b"});
  CHECK(
      words_of(R"({"type":"Whitespace"})", "a\u200db !? c") ==
      List{"a\u200db", "!?", "c"});
  CHECK(
      words_of(R"({"type":"WhitespaceSplit"})", " a! b\u00a0") ==
      List{"a!", "b"});
  CHECK(words_of("null", "a b") == List{"a b"});
}

TEST_CASE("other decoders") {
  CHECK(decoded("null", {"a", "b"}) == "a b");
  CHECK(
      decoded(
          R"({"type":"ByteFallback"})",
          {"<0xC3>", "<0xa9>", "x", "<0xC3>", "<0xZZ>", "<0xFF>"}) ==
      "\u00e9x\ufffd<0xZZ>\ufffd");
  CHECK(
      decoded(
          R"({"type":"Sequence","decoders":[
                  {"type":"Replace","pattern":{"String":"_"},"content":" "},
                  {"type":"Fuse"},
                  {"type":"Strip","content":" ","start":1,"stop":0}]})",
          {"__a", "_b"}) == " a b");
  CHECK(
      decoded(
          R"({"type":"Strip","content":"x","start":1,"stop":2})",
          {"xxaxxx", "x", ""}) == "xax");
}
