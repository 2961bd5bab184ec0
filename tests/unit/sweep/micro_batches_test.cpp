// SPDX-License-Identifier: Apache-2.0
#include "sweep/micro_batches.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using namespace fettle;
using namespace fettle::sweep;

namespace {

// Sequences of these lengths, whose ids count up through all of them.
std::vector<model::Sequence> sequences(const std::vector<int>& lengths) {
  std::vector<model::Sequence> result;
  std::int32_t id = 0;
  for (const int length : lengths) {
    model::Sequence sequence;
    for (int i = 0; i < length; ++i) sequence.ids.push_back(id++);
    sequence.labels = sequence.ids;
    result.push_back(sequence);
  }
  return result;
}

std::vector<std::int64_t> sizes(const std::vector<model::TokenBatch>& batches) {
  std::vector<std::int64_t> result;
  for (const auto& batch : batches) result.push_back(batch.tokens());
  return result;
}

constexpr std::int64_t kVocabulary = 100;

}  // namespace

TEST_CASE("sequences go together until another would be too many tokens") {
  const auto batches =
      micro_batches(sequences({3, 2, 4, 1, 6}), 6, kVocabulary);
  CHECK(sizes(batches) == std::vector<std::int64_t>{5, 5, 6});
  CHECK(batches[0].starts == std::vector<std::int64_t>{0, 3, 5});
  // Their order is the data's.
  std::int64_t next = 0;
  for (const auto& batch : batches) {
    for (std::int64_t i = 0; i < batch.tokens(); ++i) {
      REQUIRE(batch.ids[i].item<std::int64_t>() == next++);
    }
  }
}

TEST_CASE("a sequence longer than a micro-batch stands alone") {
  const auto batches = micro_batches(sequences({2, 9, 2}), 4, kVocabulary);
  CHECK(sizes(batches) == std::vector<std::int64_t>{2, 9, 2});
  CHECK(micro_batches({}, 4, kVocabulary).empty());
}

TEST_CASE("a sweep takes runs of several shards, none across two") {
  const auto data = sequences({3, 2, 4, 1, 6});
  std::vector<std::vector<std::vector<std::int64_t>>> found;
  for (const auto& runs : own_sweeps(data, {.shards = 2}, 6)) {
    found.emplace_back();
    for (const SequenceRun& run : runs) {
      found.back().push_back(
          {std::ssize(run.of(data)),
           run.tokens,
           static_cast<std::int64_t>(run.shard)});
    }
  }
  CHECK(
      found == std::vector<std::vector<std::vector<std::int64_t>>>{
                   {{2, 5, 0}}, {{1, 4, 0}, {1, 1, 1}}, {{1, 6, 1}}});
}

TEST_CASE("a token beyond the vocabulary is refused") {
  CHECK_THROWS_AS(micro_batches(sequences({5}), 8, 4), UserError);
}

TEST_CASE("the last token of a sequence predicts nothing") {
  CHECK(loss_tokens(micro_batches(sequences({3, 4, 1}), 5, kVocabulary)) == 5);
  auto masked = sequences({4});
  masked[0].labels = {-100, -100, 2, -100};
  CHECK(loss_tokens(micro_batches(masked, 8, kVocabulary)) == 1);
}
