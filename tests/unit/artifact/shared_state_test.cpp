// SPDX-License-Identifier: Apache-2.0
// States whose tensors lie at several ranks.
#include "artifact/shared_state.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "../ranks/thread_group.h"
#include "../temporary_folder.h"

using namespace fettle;
using namespace fettle::artifact;

namespace {

// Tensor i of ranks' state: rank i modulo their number has it.
at::Tensor tensor_of(std::int64_t i) {
  return at::arange(6, at::kFloat).view({2, 3}) + static_cast<double>(i);
}

RunState divided_state(std::int64_t rank, std::int64_t size) {
  RunState state;
  state.step = 3;
  state.micro_batch_tokens = 5;
  state.found = {{"loss", 0.5}};
  for (std::int64_t i = 0; i < 5; ++i) {
    const bool mine = i % size == rank;
    state.tensors[fmt::format("t{}", i)] =
        mine ? tensor_of(i)
             : at::empty({2, 3}, at::device(at::kMeta).dtype(at::kFloat));
  }
  // Not at ranks that write nothing.
  if (rank == 0) state.tensors["all"] = at::full({2}, 7, at::kInt);
  return state;
}

void require(bool is, const char* what) {
  if (!is) throw std::runtime_error(what);
}

}  // namespace

TEST_CASE("rank 0 writes what other ranks hold") {
  const TemporaryFolder folder;
  for (const std::int64_t size : {1, 2, 4}) {
    const auto out = folder.path() / std::to_string(size);
    std::filesystem::create_directory(out);
    ranks::as_ranks(size, [&](ranks::Group& group) {
      const auto state = divided_state(group.rank(), size);
      // The second time it is there.
      for (int i = 0; i < 2; ++i) save_shared_state(group, out, state);
    });
    const auto saved = load_newest_state(out, "tune");
    REQUIRE(saved);
    CHECK(saved->tensors.size() == 6);
    for (std::int64_t i = 0; i < 5; ++i) {
      CHECK(saved->tensors.at(fmt::format("t{}", i)).equal(tensor_of(i)));
    }
  }
}

TEST_CASE("each rank reads what it keeps of a state") {
  const TemporaryFolder folder;
  save_state(folder.path(), divided_state(0, 1));
  ranks::as_ranks(3, [&](ranks::Group& group) {
    const std::string mine = fmt::format("t{}", group.rank());
    const auto here = group.rank() == 0 ? folder.path() : "/nonexistent";
    const auto state =
        load_shared_state(group, here, "tune", [&](const std::string& name) {
          return name == mine || name == "all";
        });
    require(state.has_value(), "state");
    require(state->step == 3 && state->micro_batch_tokens == 5, "step");
    require(state->found == Json{{"loss", 0.5}}, "found");
    require(state->tensors.size() == 2, "kept");
    require(state->tensors.at(mine).equal(tensor_of(group.rank())), "own");
    require(state->tensors.at("all").equal(at::full({2}, 7, at::kInt)), "all");
  });
}

TEST_CASE("no rank has a state where rank 0 has none") {
  const TemporaryFolder folder;
  ranks::as_ranks(2, [&](ranks::Group& group) {
    const auto all = [](const std::string&) { return true; };
    require(!load_shared_state(group, folder.path(), "tune", all), "none");
  });
}
