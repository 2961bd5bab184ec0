// SPDX-License-Identifier: Apache-2.0
// Tells a rank that another one has ended, in a thread that watches the board:
// a layer may compute for minutes before the ranks speak with each other again.
// Every rank counts a number up; one whose number stays is gone.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ranks/board.h"

namespace fettle::ranks {

struct HeartbeatOptions {
  std::int64_t rank = 0;
  std::int64_t size = 1;
  bool serves = false;  // the board ends with this process
  std::chrono::milliseconds beat{250};
  std::chrono::milliseconds silence{10'000};   // of a rank that counts as gone
  std::chrono::milliseconds lingering{2'000};  // for others to read the board
  // Called once, on the watching thread, with one line on what happened; must
  // end the process.
  std::function<void(const std::string&)> on_loss;
};

class Heartbeat {
 public:
  Heartbeat(std::unique_ptr<Board> board, HeartbeatOptions options);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // What this rank does from now on, for what is said of a loss.
  void begin(std::string work);
  // Ends the watch, before this rank leaves in good order.
  void stop();
  // Says on the board why this rank is about to end.
  void fail(std::string_view reason) noexcept;
  // What is to be said when a call that waited for other ranks has failed with
  // `error`: one line. Does not return where the watching thread is about to
  // end the process for the same reason.
  std::string explain(const std::string& error);

 private:
  using Clock = std::chrono::steady_clock;
  // The rank that ended first, and why.
  struct End {
    std::int64_t rank = 0;
    std::string reason;
  };
  struct Seen {
    std::string beat;
    Clock::time_point when;
  };

  void speak();  // the thread that writes and reads the board
  void watch();  // the thread that judges by what was read
  void round();
  std::optional<End> lost(std::chrono::milliseconds silence);
  End post(const End& end);
  void linger(std::int64_t lost);
  std::string line(const End& end);

  HeartbeatOptions options_;
  std::unique_ptr<Board> board_, callers_;
  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::string work_ = "the beginning";
  std::optional<End> end_;
  std::vector<Seen> seen_;  // [size]
  Clock::time_point last_round_ = Clock::now();
  bool board_lost_ = false;
  bool stopping_ = false;
  std::atomic<bool> claimed_ = false;  // somebody reports the end
  std::thread speaker_, watcher_;
};

}  // namespace fettle::ranks
