// SPDX-License-Identifier: Apache-2.0
#include "ranks/place.h"

#include <catch2/catch.hpp>
#include <map>

#include "core/error.h"

using namespace fettle;
using namespace fettle::ranks;

namespace {

std::map<std::string, std::string> torchrun() {
  return {
      {"RANK", "3"},
      {"WORLD_SIZE", "4"},
      {"LOCAL_WORLD_SIZE", "2"},
      {"MASTER_ADDR", "127.0.0.1"},
      {"MASTER_PORT", "29500"},
      {"TORCHELASTIC_USE_AGENT_STORE", "True"},
      {"TORCHELASTIC_RESTART_COUNT", "1"}};
}

Environment of(const std::map<std::string, std::string>& variables) {
  return [variables](const char* name) -> const char* {
    static std::string value;
    const auto found = variables.find(name);
    if (found == variables.end()) return nullptr;
    value = found->second;
    return value.c_str();
  };
}

}  // namespace

TEST_CASE("torchrun's environment names a rank's place") {
  const auto place = place_of(of(torchrun()));
  REQUIRE(place);
  CHECK(place->rank == 3);
  CHECK(place->size == 4);
  CHECK(place->local_size == 2);
  CHECK(place->port == 29500);
  CHECK(place->launcher_serves);
  CHECK(place->attempt == "1");
  CHECK(rank_name(of(torchrun())) == "rank 3");

  auto plain = torchrun();
  CHECK(place->wait_seconds == 60);
  plain["FETTLE_RANKS_WAIT"] = "300";
  CHECK(place_of(of(plain))->wait_seconds == 300);
  plain.erase("TORCHELASTIC_USE_AGENT_STORE");
  plain.erase("LOCAL_WORLD_SIZE");
  CHECK_FALSE(place_of(of(plain))->launcher_serves);
  CHECK(place_of(of(plain))->local_size == 1);
}

TEST_CASE("a process that is alone has no place") {
  CHECK_FALSE(place_of(of({})));
  CHECK_FALSE(place_of(of({{"WORLD_SIZE", "1"}})));
  CHECK(rank_name(of({})).empty());
  CHECK(rank_name(of({{"WORLD_SIZE", "1"}, {"RANK", "0"}})).empty());
}

TEST_CASE("an environment that makes no sense is refused") {
  const auto [name, value] = GENERATE(table<const char*, const char*>({
      {"WORLD_SIZE", "two"},
      {"WORLD_SIZE", "0"},
      {"RANK", "4"},
      {"RANK", ""},
      {"MASTER_PORT", "0"},
      {"MASTER_ADDR", ""},
      {"LOCAL_WORLD_SIZE", "5"},
      {"FETTLE_RANKS_WAIT", "0"},
  }));
  auto variables = torchrun();
  variables[name] = value;
  CHECK_THROWS_AS(place_of(of(variables)), UserError);
  CHECK_THROWS_WITH(place_of(of(variables)), Catch::Contains(name));
}
