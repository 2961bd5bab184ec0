// SPDX-License-Identifier: Apache-2.0
#include "text/continuation.h"

#include <catch2/catch.hpp>

#include "text/python_strings.h"
#include "tokenizer_files.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;

namespace {

using TokenIds = std::vector<std::int32_t>;

std::string pair_refusal(
    const PairEncoder& encoder, const char* context, const char* continuation) {
  try {
    encoder.encode(context, continuation, "q, row 1");
  } catch (const UserError& error) {
    return error.what();
  }
  return "encoded";
}

}  // namespace

TEST_CASE("a continuation is what comes behind the context's tokens") {
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  const PairEncoder encoder(tokenizer, PrefixToken{10, "<s>"});
  // "ab" and "c" are one token together: by count, nothing comes behind.
  CHECK_THAT(pair_refusal(encoder, "ab", "c"), Contains("adds no token"));
  auto pair = encoder.encode("ab", "de", "q");
  CHECK(pair.ids == TokenIds{6, 8});
  CHECK(pair.continuation == 1);
  // White space at the context's end goes over.
  pair = encoder.encode("ab  ", "de", "q");
  CHECK(pair.ids == TokenIds{6, 5, 5, 8});
  CHECK(pair.continuation == 3);
}

TEST_CASE("a token stands for a context that isn't there") {
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  const PairEncoder encoder(tokenizer, PrefixToken{10, "<s>"});
  CHECK(encoder.encode("", "de", "q").ids == TokenIds{10, 8});
  CHECK(encoder.encode(" ", "de", "q").ids == TokenIds{10, 5, 8});
  const auto own = encoder.encode("", "<s>de", "q");
  CHECK(own.ids == TokenIds{10, 8});
  CHECK(own.continuation == 1);
  const PairEncoder without(tokenizer, std::nullopt);
  CHECK_THAT(pair_refusal(without, "", "de"), Contains("has no context"));
  CHECK_THAT(pair_refusal(encoder, "", ""), Contains("adds no token"));
}

TEST_CASE("the token is the one that begins a text, or else ends it") {
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  const TemporaryFolder folder;
  CHECK(!prefix_token(folder.path(), tokenizer));
  const auto with = [&](const std::string& json) {
    std::ofstream(folder.path() / "tokenizer_config.json") << json;
    return prefix_token(folder.path(), tokenizer);
  };
  CHECK(with(R"({"bos_token": null, "eos_token": "<s>"})")->id == 10);
  CHECK(
      with(R"({"bos_token": {"content": "a"}, "eos_token": "<s>"})")->id == 0);
  CHECK(!with("{}"));
  CHECK_THROWS_WITH(
      with(R"({"bos_token": "none"})"), Contains("does not have"));
}

TEST_CASE("strings are as Python has them") {
  CHECK(stripped("\u2003 a b\x1f\n") == "a b");
  CHECK(stripped(" \t").empty());
  CHECK(replaced("a  b   c", "  ", " ") == "a b  c");
  CHECK(capitalized("éCOLE") == "École");
  CHECK(capitalized("").empty());
  CHECK(lowered("ÀB c") == "àb c");
  CHECK(count_characters("aé東") == 3);
}
