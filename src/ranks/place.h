// SPDX-License-Identifier: Apache-2.0
// A process's place among others, as torchrun and other launchers name it in
// the environment.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace fettle::ranks {

struct Place {
  std::int64_t rank = 0;
  std::int64_t size = 1;
  std::int64_t local_size = 1;  // ranks of this machine
  std::string address;          // where the ranks meet
  std::int64_t port = 0;
  bool launcher_serves = false;    // torchrun holds the port, not rank 0
  std::string attempt = "0";       // torchrun's count of restarts
  std::int64_t wait_seconds = 60;  // for the others to come
};

using Environment = std::function<const char*(const char*)>;

// RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and torchrun's
// own, and FETTLE_RANKS_WAIT in seconds; none where WORLD_SIZE is not set or 1.
// Throws UserError where one is missing or no number.
std::optional<Place> place_of(const Environment& environment);

// "rank 3", or "" where the environment names no rank or there is one only.
// Never throws.
std::string rank_name(const Environment& environment);

}  // namespace fettle::ranks
