// SPDX-License-Identifier: Apache-2.0
// One request on its way: the model's thread puts in what is decoded, the
// client's thread takes it out.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "decode/engine.h"

namespace fettle::serve {

// What was made of one choice: text that follows, or its end.
struct Piece {
  std::size_t choice = 0;
  std::string text = {};
  std::vector<decode::Chances> chances = {};  // of its tokens, where asked for
  std::optional<decode::Completion> completion = {};
  // Why the request ends here for all choices; empty: it doesn't.
  std::string failure = {};
};

class Job {
 public:
  void put(Piece piece);
  // The next piece, or none that came within `patience`.
  std::optional<Piece> next(std::chrono::milliseconds patience);

  // The client is gone: what is left is not decoded.
  void abandon() { abandoned_ = true; }
  bool abandoned() const { return abandoned_; }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<Piece> pieces_;
  std::atomic<bool> abandoned_ = false;
};

}  // namespace fettle::serve
