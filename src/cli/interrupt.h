// SPDX-License-Identifier: Apache-2.0
// A first Ctrl-C asks a run to stop in good order; a second one ends it.
#pragma once

#include <atomic>

namespace fettle::cli {

// Takes over SIGINT and SIGTERM for its lifetime. One at a time.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  const std::atomic<bool>& requested() const;
};

}  // namespace fettle::cli
