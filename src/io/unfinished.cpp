// SPDX-License-Identifier: Apache-2.0
#include "io/unfinished.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace fettle::io {
namespace {

// One for the whole process, since a signal ends all of it.
struct Registry {
  std::mutex mutex;
  std::vector<const std::function<bool()>*> clears;
};

Registry& registry() {
  static Registry& kept = *new Registry;  // outlives whoever looks at it
  return kept;
}

}  // namespace

Unfinished::Unfinished(std::function<bool()> clear) : clear_(std::move(clear)) {
  const auto held = hold();
  registry().clears.push_back(&clear_);
}

Unfinished::~Unfinished() {
  const auto held = hold();
  std::erase(registry().clears, &clear_);
}

std::unique_lock<std::mutex> Unfinished::hold() {
  return std::unique_lock(registry().mutex);
}

bool Unfinished::clear_all() {
  hold().release();  // for good
  bool left = false;
  auto& clears = registry().clears;
  for (auto clear = clears.rbegin(); clear != clears.rend(); ++clear) {
    left = (**clear)() || left;
  }
  return left;
}

}  // namespace fettle::io
