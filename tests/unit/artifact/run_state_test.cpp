// SPDX-License-Identifier: Apache-2.0
#include "artifact/run_state.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "core/error.h"
#include "tiny_model.h"

using namespace fettle;
using namespace fettle::artifact;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

RunState state_of(std::int64_t step) {
  return {
      .step = step,
      .identity = {{"model", "m"}},
      .cursor = {{"drawn", 3}},
      .micro_batch_tokens = 64,
      .tensors =
          {{"a", at::full({2, 2}, step)}, {"none", at::empty({3, 0, 2})}},
      .found = {{"loss", 0.5}},
      .unit = "chunk"};
}

}  // namespace

TEST_CASE("the newest whole state is found, and older ones go") {
  const testing::TemporaryFolder folder;
  CHECK_FALSE(load_newest_state(folder.path(), "tune").has_value());
  save_state(folder.path(), state_of(9));
  save_state(folder.path(), state_of(10));
  // What a run killed while saving leaves.
  fs::create_directories(folder.path() / "state-00000011.partial");
  fs::create_directories(folder.path() / ".fettle-new-state-00000011");
  // And one killed while it removed a state, as older versions did.
  fs::create_directories(folder.path() / "state-00000012");
  std::ofstream(folder.path() / "state-00000012/state.json") << "{}";
  const auto state = load_newest_state(folder.path(), "tune");
  REQUIRE(state.has_value());
  CHECK(state->step == 10);
  CHECK(state->cursor == Json{{"drawn", 3}});
  CHECK(state->micro_batch_tokens == 64);
  CHECK(state->tensors.at("a").equal(at::full({2, 2}, 10.0)));
  CHECK(
      state->tensors.at("none").sizes().vec() ==
      std::vector<std::int64_t>{3, 0, 2});
  CHECK_FALSE(fs::exists(folder.path() / "state-00000009"));
  CHECK(state->found == Json{{"loss", 0.5}});
  CHECK(state->unit == "chunk");
  CHECK(saved_progress(folder.path()) == "a run stopped after chunk 10");
  save_state(folder.path(), state_of(12));
  CHECK(load_newest_state(folder.path(), "tune")->step == 12);
}

TEST_CASE("what a folder holds of a stopped run is told") {
  const testing::TemporaryFolder folder;
  CHECK(saved_progress(folder.path()).empty());
  std::ofstream(folder.path() / "metrics.jsonl") << "{}";
  CHECK(saved_progress(folder.path()).empty());
  std::ofstream(folder.path() / "packed-00001-of-00003.safetensors") << "x";
  CHECK(saved_progress(folder.path()).empty());
  std::ofstream(folder.path() / "quant_state.json") << "{}";
  CHECK(saved_progress(folder.path()) == "1 part of a quantized model");
  save_state(folder.path(), state_of(3));
  std::ofstream(folder.path() / "state-00000003/state.json") << "no json";
  CHECK(saved_progress(folder.path()) == "a stopped run");
}

TEST_CASE("a damaged state is refused") {
  const testing::TemporaryFolder folder;
  save_state(folder.path(), state_of(1));
  const fs::path state = folder.path() / "state-00000001";
  SECTION("a bit of a tensor") {
    std::fstream file(
        state / "state.safetensors",
        std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('!');
    file.close();
    CHECK_THROWS_WITH(
        load_newest_state(folder.path(), "tune"), Contains("damaged"));
  }
  SECTION("a value of another kind") {
    const Json sound = read_json(state / "state.json", "test");
    for (const char* key :
         {"step",
          "cursor",
          "identity",
          "micro_batch_tokens",
          "found",
          "checksum",
          "unit"}) {
      CAPTURE(key);
      Json json = sound;
      json[key] = Json::array({1});
      std::ofstream(state / "state.json") << json;
      CHECK_THROWS_AS(load_newest_state(folder.path(), "tune"), UserError);
    }
    Json json = sound;
    json["micro_batch_tokens"] = 0;
    std::ofstream(state / "state.json") << json;
    CHECK_THROWS_WITH(
        load_newest_state(folder.path(), "tune"), Contains("damaged"));
  }
  SECTION("another format") {
    Json json = read_json(state / "state.json", "test");
    json["format"] = 2;
    std::ofstream(state / "state.json") << json;
    CHECK_THROWS_WITH(
        load_newest_state(folder.path(), "tune"),
        Contains("expected 1, found 2"));
  }
}

TEST_CASE("a resume with something else names it") {
  const Json saved{{"options", {{"lr", 0.1}, {"steps", 5}}}, {"model", "a"}};
  CHECK_NOTHROW(check_same_run(saved, saved, "tune"));
  Json now = saved;
  now["options"]["lr"] = 0.2;
  CHECK_THROWS_WITH(
      check_same_run(saved, now, "tune"),
      Contains("options/lr") && Contains("0.1") && Contains("0.2"));
  now = saved;
  now["extra"] = 1;
  CHECK_THROWS_WITH(check_same_run(saved, now, "tune"), Contains("extra"));
  CHECK_THROWS_WITH(check_same_run(now, saved, "tune"), Contains("extra"));
  CHECK_THROWS_WITH(
      check_same_run(Json(3), saved, "tune"),
      Contains("identity") && Contains("expected 3"));
}
