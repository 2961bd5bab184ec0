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

inline constexpr const char* kSavingNotice =
    "\nfettle: stopping when this step is done and saved; once more ends at "
    "once\n";

// For its lifetime, a first signal only asks. One at a time.
class Interrupt {
 public:
  // `notice` is written when a signal comes; null: nothing is. It must stay.
  explicit Interrupt(const char* notice = kSavingNotice);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Whether a signal came, now or before.
  const std::atomic<bool>& requested() const;
  // Takes a signal that came as heeded: the program goes on.
  void forget();
};

}  // namespace fettle::cli
