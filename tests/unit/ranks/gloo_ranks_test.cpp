// SPDX-License-Identifier: Apache-2.0
// Ranks as processes of this program, on the loopback device.
#include "ranks/gloo_ranks.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/error.h"
#include "ranks/ordered_sum.h"
#include "ranks/shards.h"

using namespace fettle;
using namespace fettle::ranks;

namespace {

// Runs the hidden case `name` as each rank; the exit statuses.
std::vector<int> run_as_ranks(
    const std::string& name, int size, const std::vector<int>& ranks) {
  const int port = 20000 + ::getpid() % 20000;
  std::vector<pid_t> children;
  for (const int rank : ranks) {
    std::vector<std::string> variables{
        "RANK=" + std::to_string(rank),
        "WORLD_SIZE=" + std::to_string(size),
        "MASTER_ADDR=127.0.0.1",
        "MASTER_PORT=" + std::to_string(port),
        "FETTLE_RANKS_WAIT=2",
        "OMP_NUM_THREADS=1"};
    std::vector<char*> environment;
    for (auto& v : variables) environment.push_back(v.data());
    environment.push_back(nullptr);
    std::string program = "/proc/self/exe";
    std::string test = name;
    char* arguments[] = {program.data(), test.data(), nullptr};
    pid_t child = 0;
    REQUIRE(
        ::posix_spawn(
            &child,
            program.c_str(),
            nullptr,
            nullptr,
            arguments,
            environment.data()) == 0);
    children.push_back(child);
  }
  std::vector<int> statuses;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    statuses.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }
  return statuses;
}

std::unique_ptr<Group> group_of_process() {
  const auto place = place_of([](const char* n) { return std::getenv(n); });
  return open_gloo_ranks(
      place.value(), {.on_loss = [](const std::string&) { ::_exit(4); }});
}

}  // namespace

TEST_CASE("a rank calls everything once", "[.rank]") {
  const auto group = group_of_process();
  const std::int64_t rank = group->rank();
  CHECK(
      group->gather("text " + std::to_string(rank)) ==
      std::vector<std::string>{"text 0", "text 1"});
  CHECK(broadcast_text(*group, rank == 1 ? "héllo" : "", 1) == "héllo");
  CHECK(broadcast_text(*group, "", 0).empty());
  CHECK(least(*group, 7 + rank) == 7);
  CHECK(sum(*group, 7 + rank) == 15);
  require_same(*group, {{"it", "same"}});
  CHECK_THROWS_WITH(
      require_same(
          *group, {{"it", "same"}, {"the model", std::to_string(rank)}}),
      Catch::Contains("rank 1") && Catch::Contains("the model"));
  const at::Tensor into = at::empty({3});
  ShardSum own({Reduction::kSum});
  own.add({rank, 1, {at::arange(3, at::kFloat) + rank}});
  sum_over_ranks({group.get(), 2}, std::move(own), {into});
  CHECK(at::equal(into, at::arange(3, at::kFloat) * 2 + 1));
  CHECK(group->sent_bytes() > 0);
  group->leave();
}

TEST_CASE("a rank ends without a word", "[.rank]") {
  const auto group = group_of_process();
  group->barrier();
  if (group->rank() == 1) ::_exit(0);
  CHECK_THROWS_AS(group->barrier(), RankFailure);
}

TEST_CASE("a rank that waits in vain", "[.rank]") {
  CHECK_THROWS_WITH(
      group_of_process(),
      Catch::Contains("ranks 1, 3 have not come") &&
          Catch::Contains("within 2 s") &&
          Catch::Contains("FETTLE_RANKS_WAIT"));
}

TEST_CASE("a rank without rank 0", "[.rank]") {
  CHECK_THROWS_WITH(group_of_process(), Catch::Contains("MASTER_ADDR"));
}

TEST_CASE("processes speak with each other by Gloo") {
  using Statuses = std::vector<int>;
  CHECK(
      run_as_ranks("a rank calls everything once", 2, {0, 1}) ==
      Statuses{0, 0});
  CHECK(
      run_as_ranks("a rank ends without a word", 2, {0, 1}) == Statuses{0, 0});
  CHECK(run_as_ranks("a rank that waits in vain", 4, {0, 2}) == Statuses{0, 0});
  CHECK(run_as_ranks("a rank without rank 0", 2, {1}) == Statuses{0});
}
