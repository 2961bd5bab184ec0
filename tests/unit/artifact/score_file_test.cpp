// SPDX-License-Identifier: Apache-2.0
#include "artifact/score_file.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "tiny_model.h"

namespace fettle::artifact {
namespace {

using Catch::Matchers::Contains;

// A dense layer, then one of experts of widths 2, 0 and 3.
ScoreFile sample_scores() {
  ScoreFile file;
  file.model_fingerprint = "abc";
  file.version = "0.9";
  file.tokens = 12;
  file.run = {{"seed", 3}};
  file.layers.resize(2);
  LayerScores& layer = file.layers[1];
  layer.widths = {2, 0, 3};
  layer.neuron["mask_fisher"] = at::tensor({5.0f, 4.0f, 3.0f, 2.0f, 1.0f});
  layer.expert["reap"] = at::tensor({0.5f, 0.0f, 0.25f});
  layer.mean_h = at::tensor({-1.0f, 0.0f, 1.0f, 2.0f, 3.0f});
  layer.tokens = at::tensor(std::vector<std::int64_t>{7, 0, 5});
  layer.router_entropy = 0.75;
  const auto sum = [](Unit unit, Reduction reduction, std::int64_t size) {
    return Sum{unit, reduction, at::arange(size, at::kDouble) / 3};
  };
  layer.sums = {
      {"mask_fisher.sum", sum(Unit::kNeuron, Reduction::kSum, 5)},
      {"camera.largest", sum(Unit::kNeuron, Reduction::kMax, 5)},
      {"camera.outputs", sum(Unit::kNeuron, Reduction::kSame, 5)},
      {"obs.sum", sum(Unit::kNeuron, Reduction::kNone, 5)},
      {"base.tokens", sum(Unit::kExpert, Reduction::kSum, 3)},
      {"base.entropy", sum(Unit::kLayer, Reduction::kSum, 1)}};
  file.merged = {{"math", 5, {}}, {"code", 7, {}}};
  for (MergedRun& run : file.merged) run.ranks.resize(2);
  file.merged[0].ranks[1]["mask_fisher"] = at::arange(5, at::kInt);
  file.merged[1].ranks[1]["mask_fisher"] = at::arange(5, at::kInt).flip(0);
  return file;
}

// Saves the sample, with its scores.json changed.
void save_changed(
    const std::filesystem::path& folder,
    const std::function<void(Json&)>& change) {
  sample_scores().save(folder);
  Json json = read_json(folder / "scores.json", "test");
  change(json);
  std::ofstream(folder / "scores.json") << json.dump();
}

TEST_CASE("A score file comes back as it was saved") {
  const testing::TemporaryFolder folder;
  const ScoreFile saved = sample_scores();
  saved.save(folder.path());
  const ScoreFile loaded = ScoreFile::load(folder.path());
  REQUIRE(loaded.model_fingerprint == "abc");
  REQUIRE(loaded.tokens == 12);
  REQUIRE(loaded.run == saved.run);
  REQUIRE(loaded.layers.size() == 2);
  REQUIRE(loaded.layers[0].widths.empty());
  const LayerScores& layer = loaded.layers[1];
  const LayerScores& expected = saved.layers[1];
  REQUIRE(layer.widths == expected.widths);
  REQUIRE(layer.total_width() == 5);
  REQUIRE(layer.router_entropy == 0.75);
  REQUIRE(layer.mean_h.equal(expected.mean_h));
  REQUIRE(layer.tokens.equal(expected.tokens));
  REQUIRE(
      layer.neuron.at("mask_fisher").equal(expected.neuron.at("mask_fisher")));
  REQUIRE(layer.expert.at("reap").equal(expected.expert.at("reap")));
  REQUIRE(loaded.version == "0.9");
  REQUIRE(layer.sums.size() == 6);
  for (const auto& [name, sum] : expected.sums) {
    CAPTURE(name);
    REQUIRE(layer.sums.at(name).unit == sum.unit);
    REQUIRE(layer.sums.at(name).reduction == sum.reduction);
    REQUIRE(layer.sums.at(name).values.equal(sum.values));
  }
  REQUIRE(loaded.merged.size() == 2);
  REQUIRE(loaded.merged[1].name == "code");
  REQUIRE(loaded.merged[1].tokens == 7);
  REQUIRE(loaded.merged[1].ranks[0].empty());
  REQUIRE(loaded.merged[1]
              .ranks[1]
              .at("mask_fisher")
              .equal(saved.merged[1].ranks[1].at("mask_fisher")));
  REQUIRE(loaded.neuron_scores() == std::vector<std::string>{"mask_fisher"});
  REQUIRE(loaded.expert_scores() == std::vector<std::string>{"reap"});
}

TEST_CASE("A score file of another format is refused") {
  const testing::TemporaryFolder folder;
  const int format = GENERATE(1, 99);
  save_changed(folder.path(), [&](Json& json) { json["format"] = format; });
  REQUIRE_THROWS_WITH(
      ScoreFile::load(folder.path()),
      Contains("expected 3, found " + std::to_string(format)));
}

TEST_CASE("Damaged score files are refused by name") {
  struct Case {
    std::function<void(Json&)> change;
    std::string message;
  };
  const Case sample = GENERATE(values<Case>(
      {{[](Json& j) { j["layers"][1]["widths"] = {2, 0, 4}; },
        "expected 6 values"},
       {[](Json& j) { j["layers"][1]["widths"] = {2, -1, 4}; }, "at least 0"},
       {[](Json& j) { j["layers"][1]["widths"] = "x"; }, "a list"},
       {[](Json& j) { j["layers"] = 3; }, "a list"},
       {[](Json& j) { j["neuron_scores"] = {"wanda"}; },
        "layers.1.neuron.wanda: is missing"},
       {[](Json& j) { j["expert_scores"] = {3}; }, "list of score names"},
       {[](Json& j) { j["neuron_scores"] = "x"; }, "a list"},
       {[](Json& j) { j["sums"] = 1; }, "'sums' expected a list"},
       {[](Json& j) { j["sums"][0]["name"] = "gone"; },
        "layers.1.sums.gone: is missing"},
       {[](Json& j) { j["sums"][0]["per"] = "token"; },
        "expected one of neuron, expert, layer, pair, found token"},
       {[](Json& j) { j["sums"][0]["reduction"] = "mean"; },
        "expected one of sum, max, same, none, found mean"},
       {[](Json& j) { j["merged"][0]["scores"] = {"wanda"}; },
        "layers.1.ranks.0.wanda: is missing"},
       {[](Json& j) { j["run"] = 3; }, "expected a JSON object"},
       {[](Json& j) { j["run"]["model"] = 3; }, "'model' must be a string"},
       {[](Json& j) { j["run"]["loss_tokens"] = {3}; }, "'loss_tokens' must"},
       {[](Json& j) { j["run"]["data"] = "x"; }, "'data' expected a list"},
       {[](Json& j) { j.erase("checksum"); }, "'checksum' is missing"},
       {[](Json& j) { j["merged"] = "x"; }, "'merged' expected a list"}}));
  const testing::TemporaryFolder folder;
  save_changed(folder.path(), sample.change);
  REQUIRE_THROWS_WITH(ScoreFile::load(folder.path()), Contains(sample.message));
}

TEST_CASE("A score file with another bit is refused, an older one is read") {
  const testing::TemporaryFolder folder;
  sample_scores().save(folder.path());
  std::fstream file(
      folder.path() / "scores.safetensors",
      std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-3, std::ios::end);
  file.put('\1');
  file.close();
  REQUIRE_THROWS_WITH(
      ScoreFile::load(folder.path()),
      Contains("expected the checksum in scores.json"));
  save_changed(folder.path(), [](Json& json) {
    json["format"] = 2;
    json.erase("checksum");
  });
  REQUIRE_NOTHROW(ScoreFile::load(folder.path()));
}

TEST_CASE("A NaN in a score file is refused") {
  const testing::TemporaryFolder folder;
  ScoreFile file = sample_scores();
  file.layers[1].neuron["mask_fisher"][2] = NAN;
  file.save(folder.path());
  REQUIRE_THROWS_WITH(
      ScoreFile::load(folder.path()), Contains("layers.1.neuron.mask_fisher"));
}

}  // namespace
}  // namespace fettle::artifact
