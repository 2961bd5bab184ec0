// SPDX-License-Identifier: Apache-2.0
// Each way in which a tokenizer.json can be unusable, and what is said then.
#include <catch2/catch.hpp>

#include "tests/unit/text/tokenizer_files.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;

namespace {

// Puts `value` at a JSON pointer of a good file.
std::string error_with(const std::string& pointer, const char* value) {
  Json file = letters_file();
  file[Json::json_pointer(pointer)] = Json::parse(value);
  return load_error(file);
}

}  // namespace

TEST_CASE("the file itself") {
  CHECK(load_error(letters_file()) == "loaded");
  CHECK_THROWS_WITH(Tokenizer::parse("{", "t"), Contains("not valid JSON"));
  CHECK_THROWS_WITH(Tokenizer::parse("[]", "t"), Contains("JSON object"));
  CHECK_THROWS_WITH(
      Tokenizer::parse("{}", "t"), Contains("'model' is missing"));
  CHECK_THROWS_WITH(
      Tokenizer::parse(R"({"model":{"vocab":{"a":0,"a":1}}})", "t"),
      Contains("duplicate JSON key"));
}

TEST_CASE("the model") {
  CHECK_THAT(
      error_with("/model/type", R"("Unigram")"),
      Contains("'Unigram' is not supported"));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const std::string pointer = std::string("/model/") + key;
    CHECK_THAT(error_with(pointer, R"("##")"), Contains(key));
    CHECK(error_with(pointer, R"("")") == "loaded");
  }
  CHECK_THAT(error_with("/model/dropout", "0.1"), Contains("'dropout'"));
  CHECK(error_with("/model/dropout", "0.0") == "loaded");
  CHECK_THAT(error_with("/model/vocab", "{}"), Contains("not empty"));
  CHECK_THAT(error_with("/model/vocab", "[]"), Contains("must be an object"));
  for (const char* id :
       {"-1", "1.5", R"("1")", "16777216", "18446744073709551615"}) {
    CHECK_THAT(error_with("/model/vocab/a", id), Contains("a token id must"));
  }
  CHECK_THAT(error_with("/model/vocab/a", "1"), Contains("gives id 1 to both"));
  CHECK_THAT(error_with("/model/merges", "{}"), Contains("must be a list"));
  for (const char* merge :
       {R"(["ab"])", R"(["a b c"])", R"([["a"]])", "[1]", R"([["a", 1]])"}) {
    CHECK_THAT(error_with("/model/merges", merge), Contains("must hold pairs"));
  }
  CHECK_THAT(
      error_with("/model/merges", R"([["a", "x"]])"),
      Contains("names 'x', which the vocabulary lacks"));
  CHECK_THAT(
      error_with("/model/merges", R"([["a", "c"]])"), Contains("names 'ac'"));
}

TEST_CASE("added tokens") {
  const auto with = [](const char* token) {
    return error_with("/added_tokens/1", token);
  };
  CHECK_THAT(error_with("/added_tokens", "{}"), Contains("must be a list"));
  CHECK_THAT(with(R"({"id":10,"content":"x"})"), Contains("'<s>' has already"));
  CHECK_THAT(with(R"({"id":11,"content":"<s>"})"), Contains("but also id 10"));
  CHECK_THAT(
      with(R"({"id":20,"content":"x"})"),
      Contains("'x' has id 20") && Contains("would be 11"));
  CHECK_THAT(with(R"({"id":1,"content":"a"})"), Contains("would be 0"));
  CHECK_THAT(with(R"({"id":11,"content":""})"), Contains("is empty"));
  CHECK_THAT(with(R"({"id":-1,"content":"x"})"), Contains("a token id must"));
  Json file = letters_file();
  file["normalizer"] = {{"type", "Strip"}};
  file["added_tokens"][1] = {{"id", 11}, {"content", "  "}};
  CHECK_THAT(load_error(file), Contains("is empty once normalized"));
}

TEST_CASE("normalizers") {
  const auto with = [](const char* json) {
    return error_with("/normalizer", json);
  };
  CHECK_THAT(
      with(R"({"type":"Precompiled"})"), Contains("'Precompiled' is not"));
  CHECK_THAT(
      with(R"({"type":"Sequence","normalizers":1})"),
      Contains("must be a list"));
  CHECK_THAT(
      with(R"({"type":"Replace","pattern":{"Regex":"a"
}
, "content" : "$1"
})"),
      Contains("refers to a group"));
  CHECK_THAT(
      with(R"({"type":"Replace","pattern":{"String":""},"content":""})"),
      Contains("is an empty string"));
  CHECK_THAT(
      with(R"({"type":"Replace","pattern":{"Glob":"*"},"content":""})"),
      Contains("'pattern' must be"));
}

TEST_CASE("pre-tokenizers") {
  const auto with = [](const char* json) {
    return error_with("/pre_tokenizer", json);
  };
  CHECK_THAT(
      with(R"({"type":"UnicodeScripts"})"), Contains("'UnicodeScripts'"));
  CHECK_THAT(
      with(R"({"type":"Sequence","pretokenizers":null})"),
      Contains("must be a list"));
  CHECK_THAT(
      with(R"({"type":"Split","pattern":{"Regex":"*"},"behavior":"Isolated"})"),
      Contains("does not compile"));
  CHECK_THAT(
      with(R"({"type":"Split","pattern":{"String":"a"},"behavior":"Odd"})"),
      Contains("'Odd' is not supported"));
  CHECK_THAT(
      with(R"({"type":"Metaspace","replacement":"ab"})"),
      Contains("must be one character"));
  CHECK_THAT(
      with(R"({"type":"Metaspace","replacement":"_","prepend_scheme":"last"})"),
      Contains("found 'last'"));
  CHECK_THAT(
      with(R"({"type":"Metaspace","replacement":"_","prepend_scheme":"first",
               "add_prefix_space":false})"),
      Contains("contradicts"));
}

TEST_CASE("post-processors") {
  const auto with = [](const char* json) {
    return error_with("/post_processor", json);
  };
  CHECK_THAT(with(R"({"type":"Other"})"), Contains("'Other' is not supported"));
  CHECK_THAT(
      with(R"({"type":"Sequence","processors":1})"),
      Contains("must be a list"));
  CHECK_THAT(
      with(R"({"type":"BertProcessing","sep":["x"],"cls":["y",1]})"),
      Contains("a token and its id"));
  CHECK_THAT(
      with(R"({"type":"BertProcessing","sep":["x",99],"cls":["y",1]})"),
      Contains("adds id 99, which no token has"));
  const auto single = [&](const std::string& pieces) {
    const std::string json =
        R"({"type":"TemplateProcessing","special_tokens":{"x":{"ids":1}},)"
        R"("single":)" +
        pieces + "}";
    return with(json.c_str());
  };
  CHECK_THAT(single("1"), Contains("must be a list"));
  CHECK_THAT(single("[]"), Contains("text A once"));
  CHECK_THAT(single(R"([{"Sequence":{"id":"B"}}])"), Contains("second text"));
  CHECK_THAT(
      single(R"([{"SpecialToken":{"id":"x"}}])"), Contains("must be a list"));
  CHECK_THAT(
      single(R"([{"SpecialToken":{"id":"y"}}])"), Contains("'y' is missing"));
}

TEST_CASE("decoders") {
  const auto with = [](const char* json) {
    return error_with("/decoder", json);
  };
  CHECK_THAT(with(R"({"type":"CTC"})"), Contains("'CTC' is not supported"));
  CHECK_THAT(
      with(R"({"type":"Sequence","decoders":1})"), Contains("must be a list"));
  CHECK_THAT(
      with(R"({"type":"Sequence","decoders":[null]})"), Contains("holds null"));
  CHECK_THAT(
      with(R"({"type":"Strip","content":"","start":1,"stop":0})"),
      Contains("must be one character"));
  CHECK_THAT(
      with(R"({"type":"Replace","pattern":{"Regex":"a"
}
, "content" : "$1"
})"),
      Contains("refers to a group"));
}
