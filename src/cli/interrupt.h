// SPDX-License-Identifier: Apache-2.0
// Ctrl-C, SIGTERM and a closed terminal. Where a run can save its state, a
// first signal asks it to stop in good order. Elsewhere, and the second time,
// the program ends at once, and folders that nobody could go on with go with
// it.
#pragma once

#include <atomic>

namespace fettle::cli {

// Takes the signals over until the process ends. Called once.
void heed_signals();

// Says that a run has stopped in good order, and was not at its end.
void note_stop();
// The signal that it stopped by, or 0 where none did.
int stopped_by();

// For its lifetime, a first signal only asks. One at a time.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Whether a signal came, now or before.
  const std::atomic<bool>& requested() const;
};

}  // namespace fettle::cli
