// SPDX-License-Identifier: Apache-2.0
// Ranks that speak by Gloo, libtorch's own library for CPUs: over TCP, in
// networks whose machines trust each other.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "ranks/group.h"
#include "ranks/place.h"

namespace fettle::ranks {

struct GlooOptions {
  std::chrono::milliseconds beat{250};
  std::chrono::milliseconds silence{10'000};  // of a rank that counts as gone
  // Called once, on a thread of its own, when another rank is lost; must end
  // the process.
  std::function<void(const std::string&)> on_loss;
};

// Waits for all ranks of the place, as long as that says. Throws RankFailure
// naming those that do not come, or where one can't be reached.
std::unique_ptr<Group> open_gloo_ranks(
    const Place& place, const GlooOptions& options);

}  // namespace fettle::ranks
