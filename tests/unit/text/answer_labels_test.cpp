// SPDX-License-Identifier: Apache-2.0
#include "text/answer_labels.h"

#include <catch2/catch.hpp>
#include <random>

#include "tests/unit/text/tokenizer_files.h"

using namespace fettle;
using namespace fettle::text;
using Ids = std::vector<std::int32_t>;

namespace {

// Straight from the contract: each border by encoding all that is before it.
Sample by_whole_prefixes(
    const std::vector<ChatSegment>& segments, const Tokenizer& tokenizer) {
  std::string text;
  for (const auto& segment : segments) text += segment.text;
  Sample sample;
  sample.ids = tokenizer.encode(text, {false});
  sample.labels.assign(sample.ids.size(), kMasked);
  const auto border = [&](std::size_t bytes) {
    const Ids before = tokenizer.encode(text.substr(0, bytes), {false});
    std::size_t same = 0;
    while (same < before.size() && same < sample.ids.size() &&
           before[same] == sample.ids[same]) {
      ++same;
    }
    return same;
  };
  std::size_t bytes = 0;
  for (const auto& segment : segments) {
    const std::size_t begin = border(bytes);
    bytes += segment.text.size();
    if (!segment.counts) continue;
    for (std::size_t t = begin; t < border(bytes); ++t) {
      sample.labels[t] = sample.ids[t];
    }
  }
  return sample;
}

}  // namespace

TEST_CASE("borders are where the text before them has the same tokens") {
  Json spaced = letters_file();
  spaced["pre_tokenizer"] = {
      {"type", "Metaspace"},
      {"replacement", " "},
      {"prepend_scheme", "first"},
      {"split", false}};
  Json stripping = letters_file();
  stripping["added_tokens"][0]["lstrip"] = true;
  stripping["added_tokens"][0]["rstrip"] = true;
  std::mt19937 random(7);
  for (const Json& file : {letters_file(), spaced, stripping}) {
    const Tokenizer tokenizer = make_tokenizer(file);
    for (int round = 0; round < 200; ++round) {
      std::vector<ChatSegment> segments;
      for (int s = 0; s < 6; ++s) {
        std::string text;
        for (int i = 0; i < static_cast<int>(random() % 5); ++i) {
          constexpr const char* kPieces[] = {
              "a", "b", "c", "d", "e", " ", "ab", "<s>", "<s", ">", "<tool>"};
          text += kPieces[random() % 11];
        }
        segments.push_back({text, random() % 2 == 0});
      }
      const Sample got = label_answers(segments, tokenizer, {});
      const Sample want = by_whole_prefixes(segments, tokenizer);
      REQUIRE(got.ids == want.ids);
      REQUIRE(got.labels == want.labels);
    }
  }
}

TEST_CASE("the next turn's header counts where it is what ends an answer") {
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  const auto labels = [&](const std::vector<ChatSegment>& segments) {
    return label_answers(segments, tokenizer, Ids{10, 11}).labels;
  };
  CHECK(
      labels({{"<tool>c", false}, {"b", true}, {"<s>c", false}}) ==
      Ids{kMasked, kMasked, 1, 10, kMasked});
  // Not behind an answer that has an end of its own.
  CHECK(
      labels({{"a", false}, {"d<s> ", true}, {"<tool>", false}}) ==
      Ids{kMasked, 3, 10, 5, kMasked});
  CHECK(
      labels({{"a", false}, {"d", true}, {"b", false}}) ==
      Ids{kMasked, 3, kMasked});
  CHECK(
      labels({{"a", false}, {"", true}, {"<s>", false}}) ==
      Ids{kMasked, kMasked});
  CHECK(labels({{"d", true}}) == Ids{3});
  CHECK(labels({}).empty());
}

TEST_CASE("labels of many turns take time in proportion to them") {
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  std::vector<ChatSegment> segments;
  for (int turn = 0; turn < 4000; ++turn) {
    segments.push_back({"<s>" + std::string(60, 'd'), false});
    segments.push_back({std::string(60, 'b') + "<tool>", true});
  }
  // By whole prefixes this is two gigabytes of text, minutes of work.
  const Sample sample = label_answers(segments, tokenizer, {});
  CHECK(std::ranges::count(sample.labels, kMasked) == 4000 * 61);
}
