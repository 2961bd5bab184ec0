// SPDX-License-Identifier: Apache-2.0
// What is to be cleared away when a process ends without unwinding its stack,
// as on Ctrl-C.
#pragma once

#include <functional>
#include <mutex>

namespace fettle::io {

// Something unfinished on disk, for its lifetime.
class Unfinished {
 public:
  // `clear` removes what nobody can go on with, and returns whether something
  // stays that a run can be resumed from. It must not throw.
  explicit Unfinished(std::function<bool()> clear);
  ~Unfinished();
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  // While held, nothing is cleared: for a change that must not be cut in two.
  static std::unique_lock<std::mutex> hold();

  // Clears all of the process, the newest first, and returns whether something
  // stays. The process must then end: whoever makes, ends or holds one waits
  // for ever.
  static bool clear_all();

 private:
  std::function<bool()> clear_;
};

}  // namespace fettle::io
