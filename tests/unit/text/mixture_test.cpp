// SPDX-License-Identifier: Apache-2.0
#include "text/mixture.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>

#include "core/error.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;
using Ids = std::vector<std::int32_t>;

namespace {

// `count` documents of `length` tokens; document d holds first + 100 d, ...
WeightedSamples documents(
    const char* name, std::int32_t first, int count, int length) {
  WeightedSamples source{name, 1.0, {}};
  for (int d = 0; d < count; ++d) {
    Sample sample;
    for (int t = 0; t < length; ++t) {
      sample.ids.push_back(first + 100 * d + t);
    }
    sample.labels = sample.ids;
    source.samples.push_back(sample);
  }
  return source;
}

}  // namespace

TEST_CASE("a document that is cut goes on from its last token") {
  Mixture mixture({documents("a", 0, 1, 5)}, {1, 4});
  PackedSequence s = mixture.next();
  CHECK(s.ids == Ids{0, 1, 2, 3});
  CHECK(s.labels == Ids{kMasked, 1, 2, 3});
  CHECK(s.document_starts == std::vector<std::int64_t>{0});
  s = mixture.next();
  CHECK(s.ids == Ids{3, 4, 0, 1});
  CHECK(s.labels == Ids{kMasked, 4, kMasked, 1});
  CHECK(s.document_starts == std::vector<std::int64_t>{0, 2});
  // One place is left: it predicts nothing, and the document starts anew.
  s = mixture.next();
  CHECK(s.ids == Ids{1, 2, 3, 4});
  Mixture three({documents("a", 0, 1, 3)}, {1, 4});
  CHECK(three.next().ids == Ids{0, 1, 2, 0});
  CHECK(three.next().labels == Ids{kMasked, 1, 2, kMasked});
}

TEST_CASE("every token but a document's first is predicted once an epoch") {
  Mixture mixture({documents("a", 0, 7, 11)}, {5, 8});
  std::map<std::int32_t, int> predicted;
  int total = 0;
  while (total < 7 * 10 * 3) {
    const PackedSequence s = mixture.next();
    REQUIRE(s.ids.size() == 8);
    for (const std::int32_t label : s.labels) {
      if (label == kMasked) continue;
      ++predicted[label];
      ++total;
    }
  }
  CHECK(predicted.size() == 70);
  for (const auto& [id, times] : predicted) {
    CHECK(id % 100 != 0);
    // The last window may already hold tokens of the next epoch.
    CHECK((times == 3 || times == 4));
  }
}

TEST_CASE("masked labels stay masked") {
  WeightedSamples source{"a", 1.0, {{{1, 2, 3, 4}, {kMasked, kMasked, 3, 4}}}};
  Mixture mixture({source}, {1, 4});
  CHECK(mixture.next().labels == Ids{kMasked, kMasked, 3, 4});
}

TEST_CASE("answers stay with what they answer") {
  auto chats = documents("chats", 0, 40, 5);
  auto longer = documents("longer", 50, 40, 9);
  for (auto* source : {&chats, &longer}) {
    for (Sample& sample : source->samples) sample.whole = true;
  }
  Mixture mixture({chats, longer}, {2, 16});
  std::map<std::int32_t, int> predicted;
  std::size_t tokens = 0;
  constexpr std::size_t kSequences = 200;
  for (std::size_t i = 0; i < kSequences; ++i) {
    const PackedSequence s = mixture.next();
    tokens += s.ids.size();
    REQUIRE(s.ids.size() <= 16);
    for (std::size_t d = 0; d < s.document_starts.size(); ++d) {
      const auto start = static_cast<std::size_t>(s.document_starts[d]);
      const std::size_t end =
          d + 1 < s.document_starts.size()
              ? static_cast<std::size_t>(s.document_starts[d + 1])
              : s.ids.size();
      CHECK(s.labels[start] == kMasked);
      CHECK(s.ids[start] % 50 == 0);
      CHECK(end - start == (s.ids[start] % 100 == 0 ? 5u : 9u));
    }
    for (const std::int32_t label : s.labels) ++predicted[label];
  }
  // 9 + 5 and 5 + 5 + 5 leave two places and one empty.
  CHECK(tokens > kSequences * 13);
  CHECK(predicted.size() == 1 + 40 * 4 + 40 * 8);
}

TEST_CASE("running text fills what whole samples leave") {
  auto chats = documents("chats", 0, 30, 10);
  for (Sample& sample : chats.samples) sample.whole = true;
  Mixture mixture({chats, documents("text", 50, 5, 40)}, {2, 16});
  for (int i = 0; i < 60; ++i) CHECK(mixture.next().ids.size() == 16);
}

TEST_CASE("what is longer than a sequence loses its end, and is counted") {
  WeightedSamples source{"a", 1.0, {}};
  source.samples.push_back(
      {{1, 2, 3, 4, 5, 6}, {kMasked, 2, 3, 4, 5, 6}, true});
  source.samples.push_back(
      {{1, 2, 3, 4, 5}, {kMasked, kMasked, kMasked, kMasked, 5}, true});
  source.samples.push_back({{1, 2}, {kMasked, kMasked}, true});
  source.samples.push_back({{7, 8, 9}, {7, kMasked, 9}, true});
  Mixture mixture({source}, {1, 4});
  const SourceCounts counts = mixture.counts().at(0);
  CHECK(counts.samples == 2);
  CHECK(counts.tokens == 7);
  CHECK(counts.scored == 4);
  CHECK(counts.cut == 1);
  CHECK(counts.lost == 2);
  CHECK(counts.skipped == 2);
  CHECK(counts.skipped_long == 1);
  for (int i = 0; i < 4; ++i) {
    const PackedSequence s = mixture.next();
    CHECK((s.ids == Ids{1, 2, 3, 4} || s.ids == Ids{7, 8, 9}));
  }
  WeightedSamples late{"late", 1.0, {source.samples[1]}};
  CHECK_THROWS_WITH(
      Mixture({late}, {1, 4}), Contains("begins within 4 tokens"));
}

TEST_CASE("sources are drawn by weight, in a new order each epoch") {
  auto heavy = documents("heavy", 0, 6, 4);
  auto light = documents("light", 50, 6, 4);
  heavy.weight = 3.0;
  Mixture mixture({heavy, light}, {9, 4});
  std::map<bool, int> drawn;
  std::vector<std::int32_t> order;
  for (int i = 0; i < 48; ++i) {
    const std::int32_t first = mixture.next().ids[0];
    ++drawn[first % 100 == 0];
    if (first % 100 == 0) order.push_back(first);
  }
  CHECK(drawn[true] == 36);
  CHECK(drawn[false] == 12);
  const std::vector<std::int32_t> one(order.begin(), order.begin() + 6);
  const std::vector<std::int32_t> two(order.begin() + 6, order.begin() + 12);
  CHECK(std::is_permutation(one.begin(), one.end(), two.begin(), two.end()));
  CHECK(one != two);
}

TEST_CASE("the seed decides the order") {
  const auto first_ids = [](std::uint64_t seed) {
    Mixture mixture({documents("a", 0, 40, 3)}, {seed, 3});
    Ids ids;
    for (int i = 0; i < 40; ++i) ids.push_back(mixture.next().ids[0]);
    return ids;
  };
  CHECK(first_ids(1) == first_ids(1));
  CHECK(first_ids(1) != first_ids(2));
}

TEST_CASE("a restored position continues the same stream") {
  std::vector<WeightedSamples> sources = {
      documents("a", 0, 5, 7), documents("b", 50, 30, 4)};
  for (Sample& sample : sources[1].samples) sample.whole = true;
  for (int taken : {0, 1, 2, 9, 31}) {
    Mixture mixture(sources, {3, 6});
    for (int i = 0; i < taken; ++i) mixture.next();
    const Json state = Json::parse(mixture.state().dump());
    Mixture resumed(sources, {3, 6});
    resumed.restore(state);
    for (int i = 0; i < 20; ++i) {
      const PackedSequence expected = mixture.next();
      const PackedSequence found = resumed.next();
      CHECK(found.ids == expected.ids);
      CHECK(found.labels == expected.labels);
      CHECK(found.document_starts == expected.document_starts);
    }
  }
}

TEST_CASE("a position of other data is refused") {
  Mixture mixture({documents("a", 0, 5, 7)}, {3, 6});
  mixture.next();
  const Json state = mixture.state();
  const auto refuses = [&](Mixture other, const char* why) {
    CHECK_THROWS_WITH(other.restore(state), Contains(why));
  };
  refuses(Mixture({documents("a", 0, 5, 7)}, {4, 6}), "another seed");
  refuses(Mixture({documents("a", 0, 5, 7)}, {3, 7}), "sequence length");
  refuses(Mixture({documents("a", 1, 5, 7)}, {3, 6}), "other data than a");
  refuses(
      Mixture({documents("a", 0, 5, 7), documents("b", 0, 1, 2)}, {3, 6}),
      "another number of files");
  Json bad = state;
  bad["current"][0]["offset"] = 99;
  CHECK_THROWS_WITH(mixture.restore(bad), Contains("'offset' is out of range"));
  bad = state;
  bad["sources"][0]["drawn"] = -1;
  CHECK_THROWS_WITH(mixture.restore(bad), Contains("'drawn' is negative"));
}

TEST_CASE("data without anything to learn is refused") {
  CHECK_THROWS_WITH(
      Mixture({documents("a", 0, 1, 5)}, {1, 1}), Contains("at least 2"));
  CHECK_THROWS_WITH(Mixture({}, {1, 4}), Contains("there are none"));
  CHECK_THROWS_WITH(
      Mixture({documents("short", 0, 3, 1)}, {1, 4}),
      Contains("short") && Contains("no sample"));
  const WeightedSamples masked{"m", 1.0, {{{1, 2}, {1, kMasked}}}};
  CHECK_THROWS_WITH(Mixture({masked}, {1, 4}), Contains("no sample"));
}
