// SPDX-License-Identifier: Apache-2.0
#include "serve/job.h"

#include <utility>

namespace fettle::serve {

void Job::put(Piece piece) {
  {
    const std::lock_guard lock(mutex_);
    pieces_.push_back(std::move(piece));
  }
  came_.notify_one();
}

std::optional<Piece> Job::next(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  came_.wait_for(lock, patience, [this] { return !pieces_.empty(); });
  if (pieces_.empty()) return std::nullopt;
  Piece piece = std::move(pieces_.front());
  pieces_.pop_front();
  return piece;
}

}  // namespace fettle::serve
