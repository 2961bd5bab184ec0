// SPDX-License-Identifier: Apache-2.0
#include "analyze/merge_scores.h"

#include <catch2/catch.hpp>

#include "analyze/finish.h"
#include "analyze/ranking.h"
#include "core/error.h"
#include "runs.h"

namespace fettle::analyze {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::random_data;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using testing::kAll;
using testing::require_equal;
using testing::run;

artifact::ScoreFile merge_all(const std::vector<MergeInput>& inputs) {
  return merge_scores(inputs.size(), [&](std::size_t i) { return inputs[i]; });
}

std::vector<model::Sequence> part(
    const std::vector<model::Sequence>& data, int first, int last) {
  return {data.begin() + first, data.begin() + last};
}

AnalyzeOptions options_of(const std::string& file) {
  return {
      .scores = kAll,
      .batch_sequences = 2,
      .run = {{"data", {"/x/" + file + ".jsonl"}}, {"seq_len", 9}}};
}

struct Fixture {
  TinyModelOptions made{.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}}};
  TinyModel tiny{made};
  std::vector<model::Sequence> data = random_data(12, 9, 11);
  artifact::ScoreFile a = run(tiny, part(data, 0, 4), options_of("math"));
  artifact::ScoreFile b = run(tiny, part(data, 4, 6), options_of("code"));
  artifact::ScoreFile c = run(tiny, part(data, 6, 12), options_of("math"));
};

void require_close(
    const artifact::ScoreFile& found, const artifact::ScoreFile& expected) {
  REQUIRE(found.tokens == expected.tokens);
  for (std::size_t l = 0; l < expected.layers.size(); ++l) {
    const auto& x = found.layers[l];
    const auto& y = expected.layers[l];
    REQUIRE(x.tokens.equal(y.tokens));
    REQUIRE(x.router_entropy == Approx(y.router_entropy).epsilon(1e-6));
    REQUIRE(at::allclose(x.mean_h, y.mean_h, 1e-5, 1e-6));
    for (const auto scores :
         {&artifact::LayerScores::neuron, &artifact::LayerScores::expert}) {
      REQUIRE((x.*scores).size() == (y.*scores).size());
      for (const auto& [name, values] : y.*scores) {
        CAPTURE(l, name);
        // fp32 sums of micro-batches that hold other tokens.
        REQUIRE(at::allclose(
            (x.*scores).at(name),
            values,
            1e-4,
            1e-5 * values.max().item<double>()));
      }
    }
  }
}

TEST_CASE("Merged scores are those of all the data in one run") {
  Fixture f;
  const auto whole = run(f.tiny, f.data, options_of("all"));
  const auto merged = merge_all({{"a", f.a}, {"b", f.b}, {"c", f.c}});
  require_close(merged, whole);
  REQUIRE(merged.run["loss_tokens"] == whole.run["loss_tokens"]);
  REQUIRE(merged.run["sequences"] == 12);
  REQUIRE(merged.run["data"].size() == 3);
  SECTION("in steps, and through files, too") {
    const fettle::testing::TemporaryFolder folder;
    merge_all({{"a", f.a}, {"b", f.b}}).save(folder.path());
    const auto twice = merge_all(
        {{"ab", artifact::ScoreFile::load(folder.path())}, {"c", f.c}});
    require_close(twice, whole);
    REQUIRE(twice.merged.size() == 3);
  }
}

TEST_CASE("Merged scores keep each run's ranking") {
  Fixture f;
  const auto merged = merge_all({{"a", f.a}, {"b", f.b}, {"c", f.c}});
  REQUIRE(merged.merged.size() == 3);
  REQUIRE(merged.merged[0].name == "math");
  REQUIRE(merged.merged[1].name == "code");
  REQUIRE(merged.merged[2].name == "math (2)");
  REQUIRE(merged.merged[1].tokens == 18);
  const auto& ranks = merged.merged[1].ranks;
  // The weights' own scores and random numbers are no data's.
  REQUIRE_FALSE(ranks[0].contains("magnitude"));
  REQUIRE_FALSE(ranks[0].contains("random"));
  const auto expected = rank_neurons(f.b, "wanda");
  REQUIRE(ranks[0].at("wanda").equal(expected[0]));
  REQUIRE(ranks[1].at("wanda").equal(expected[1]));
}

TEST_CASE("Neurons are ranked over the whole model, ties as they stand") {
  artifact::ScoreFile file;
  file.layers.resize(3);
  file.layers[0].widths = {2};
  file.layers[0].neuron["s"] = at::tensor({1.0f, 5.0f});
  file.layers[2].widths = {1, 2};
  file.layers[2].neuron["s"] = at::tensor({5.0f, 7.0f, 0.0f});
  const auto ranks = rank_neurons(file, "s");
  REQUIRE(ranks[0].equal(at::tensor({3, 1}, at::kInt)));
  REQUIRE(ranks[1].numel() == 0);
  REQUIRE(ranks[2].equal(at::tensor({2, 0, 4}, at::kInt)));
}

TEST_CASE("The overlap of two rankings is that of their upper halves") {
  const auto ranks = [](std::vector<int> v) { return at::tensor(v, at::kInt); };
  REQUIRE(overlap(ranks({0, 1, 2, 3}), ranks({1, 0, 3, 2})) == 1);
  REQUIRE(overlap(ranks({0, 1, 2, 3}), ranks({3, 2, 1, 0})) == 0);
  REQUIRE(overlap(ranks({0, 1, 2, 3}), ranks({0, 2, 1, 3})) == Approx(1. / 3));
  // Places among a larger model, and a middle neuron that no half has.
  REQUIRE(overlap(ranks({70, 8, 9}), ranks({9, 1, 2})) == 1);
  REQUIRE(overlap(ranks({5}), ranks({7})) == 1);
}

TEST_CASE("What was not analyzed alike is not merged") {
  Fixture f;
  artifact::ScoreFile& b = f.b;
  std::string message;
  SECTION("model") {
    b.model_fingerprint = "other";
    message = "b: model: expected " + f.a.model_fingerprint + ", as in a";
  }
  SECTION("version") {
    b.version = "9.9";
    message = "version: expected " + f.a.version + ", as in a, found 9.9";
  }
  SECTION("scores") {
    for (auto& layer : b.layers) layer.neuron.erase("wanda");
    message = "scores: expected camera, grad_abs";
  }
  SECTION("windows") {
    b.run["seq_len"] = 8;
    message = "option seq_len: expected 9, as in a, found 8";
  }
  SECTION("batches") {
    b.run["batch_sequences"] = 3;
    message = "option batch_sequences: expected 2";
  }
  SECTION("seed") {
    b.run["seed"] = 3;
    message = "option seed: expected 0";
  }
  SECTION("layers") {
    b.layers[1].widths = {2, 6, 6, 1};
    message = "expected layers and sums as in a";
  }
  SECTION("sums of another kind") {
    b.layers[1].sums.at("wanda.squares").reduction = Reduction::kMax;
    message = "expected layers and sums as in a";
  }
  SECTION("what the weights gave") {
    b.layers[1].sums.at("magnitude.sum").values =
        f.a.layers[1].sums.at("magnitude.sum").values + 1;
    message = "sum magnitude.sum is not the data's";
  }
  SECTION("data") {
    b = f.a;
    message = "b: holds the same data as a";
  }
  REQUIRE_THROWS_WITH(merge_all({{"a", f.a}, {"b", b}}), Contains(message));
}

TEST_CASE("A score whose sums are not kept is not merged") {
  const TinyModel tiny;
  const auto data = random_data(4, 9, 11);
  AnalyzeOptions options{.scores = {"wanda", "obs"}};
  const auto a = run(tiny, part(data, 0, 2), options);
  const auto b = run(tiny, part(data, 2, 4), options);
  REQUIRE_THROWS_WITH(
      merge_all({{"a", a}, {"b", b}}), Contains("score obs can't be merged"));
}

TEST_CASE("Kept moments make obs merge as if it were one run") {
  const TinyModel tiny;
  const auto data = random_data(4, 9, 11);
  const AnalyzeOptions options{.scores = {"obs"}, .keep_moments = true};
  const auto merged = merge_all(
      {{"a", run(tiny, part(data, 0, 2), options)},
       {"b", run(tiny, part(data, 2, 4), options)}});
  require_equal(run(tiny, data, options), merged, 1e-2);
}

TEST_CASE("A merge holds the first file and the largest other") {
  const TinyModel tiny;
  const auto data = random_data(4, 9, 11);
  const fettle::testing::TemporaryFolder small, large;
  run(tiny, data, {.scores = {"wanda"}}).save(small.path());
  run(tiny, data, {.scores = {"obs"}, .keep_moments = true}).save(large.path());
  const auto arrays = [](const fettle::testing::TemporaryFolder& folder) {
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] :
         artifact::load_tensors(folder / "scores.safetensors").tensors) {
      bytes += static_cast<std::int64_t>(tensor.nbytes());
    }
    return bytes;
  };
  const auto layers = artifact::ScoreFile::layer_bytes(large.path());
  REQUIRE(layers.size() == 2);
  REQUIRE(layers[0] + layers[1] == arrays(large));
  REQUIRE(
      merge_bytes({small.path(), large.path(), small.path()}) ==
      arrays(small) + arrays(large) + 3 * std::max(layers[0], layers[1]));
  const fettle::testing::TemporaryFolder empty;
  REQUIRE_THROWS_AS(merge_bytes({empty.path()}), UserError);
}

TEST_CASE("One run is nothing to merge") {
  REQUIRE_THROWS_WITH(merge_all({{"a", {}}}), Contains("expected two folders"));
}

TEST_CASE("A sum that is missing is named") {
  Fixture f;
  f.a.layers[0].sums.erase("heapr.tokens");
  REQUIRE_THROWS_WITH(
      finish_layer(f.a.layers[0], {"heapr"}, 0),
      Contains("sum tokens: is missing"));
}

}  // namespace
}  // namespace fettle::analyze
