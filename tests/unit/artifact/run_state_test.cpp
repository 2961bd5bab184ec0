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
      step,
      {{"model", "m"}},
      {{"drawn", 3}},
      64,
      {{"a", at::full({2, 2}, step)}, {"none", at::empty({3, 0, 2})}}};
}

}  // namespace

TEST_CASE("the newest whole state is found, and older ones go") {
  const testing::TemporaryFolder folder;
  CHECK_FALSE(load_newest_state(folder.path(), "tune").has_value());
  save_state(folder.path(), state_of(9));
  save_state(folder.path(), state_of(10));
  // What a run killed while saving leaves.
  fs::create_directories(folder.path() / "state-00000011.partial");
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
  save_state(folder.path(), state_of(10));
  remove_states(folder.path());
  CHECK(fs::is_empty(folder.path()));
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
