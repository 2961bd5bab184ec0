// SPDX-License-Identifier: Apache-2.0
#include "decode/text_stream.h"

#include <catch2/catch.hpp>

#include "core/json.h"

using namespace fettle;
using namespace fettle::decode;

namespace {

// Letters, and the three bytes of a character by themselves.
text::Tokenizer letters() {
  return text::Tokenizer::parse(
      R"({"added_tokens": [{"id": 7, "content": "<end>", "special": true}],
          "normalizer": null, "pre_tokenizer": null, "post_processor": null,
          "decoder": {"type": "Sequence", "decoders":
                      [{"type": "ByteFallback"}, {"type": "Fuse"}]},
          "model": {"type": "BPE", "byte_fallback": true,
                    "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3,
                              "<0xE2>": 4, "<0x82>": 5, "<0xAC>": 6},
                    "merges": [["a", "b"]]}})",
      "t.json");
}

// The pieces that come of `ids`, and what is left at the end.
std::vector<std::string> pieces(
    const std::vector<std::string>& stops,
    const std::vector<std::int32_t>& ids) {
  const text::Tokenizer tokenizer = letters();
  TextStream stream(tokenizer, stops);
  std::vector<std::string> all;
  for (const std::int32_t id : ids) all.push_back(stream.add(id));
  all.push_back(stream.finish());
  return all;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("text comes as it is made") {
  CHECK(pieces({}, {0, 3, 2}) == Texts{"a", "ab", "c", ""});
  CHECK(pieces({""}, {0, 7, 1}) == Texts{"a", "", "b", ""});
}

TEST_CASE("a character comes when it is whole") {
  CHECK(pieces({}, {0, 4, 5, 6, 1}) == Texts{"a", "", "", "€", "b", ""});
  // At the end what there is comes.
  CHECK(pieces({}, {0, 4}).back() == "\xEF\xBF\xBD");
}

TEST_CASE("what may become a stop string is held back") {
  CHECK(
      pieces({"bc"}, {0, 1, 0, 1, 2, 0}) ==
      Texts{"a", "", "ba", "", "", "", ""});
  CHECK(pieces({"bc"}, {0, 1}) == Texts{"a", "", "b"});
  CHECK(pieces({"abab", "c"}, {3, 3}) == Texts{"", "", ""});
  CHECK(pieces({"ca", "b"}, {0, 3}) == Texts{"a", "a", ""});
}

TEST_CASE("nothing comes after a stop string") {
  const text::Tokenizer tokenizer = letters();
  TextStream stream(tokenizer, {"b"});
  CHECK(stream.add(0) == "a");
  CHECK_FALSE(stream.stopped());
  CHECK(stream.add(3) == "a");
  CHECK(stream.stopped());
  CHECK(stream.add(0).empty());
  CHECK(stream.finish().empty());
}
