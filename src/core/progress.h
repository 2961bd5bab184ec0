// SPDX-License-Identifier: Apache-2.0
// Progress of long loops. A loop holds a Progress and counts what it has done;
// a Reporter, passed down by reference, decides what is shown. Reporters may be
// called from several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace fettle {

struct ProgressTask {
  std::string label{};       // "analyze"
  std::uint64_t total = 0;   // 0: unknown
  std::string unit{};        // "tokens"
  std::uint64_t before = 0;  // of the total, done by an earlier run
};

class Reporter {
 public:
  virtual ~Reporter() = default;
  virtual std::size_t begin(ProgressTask task) = 0;  // returns its id
  virtual void advance(std::size_t id, std::uint64_t n) = 0;
  // What the task's line shows in place of the numbers done, from now on.
  virtual void tell(std::size_t id, std::string text) = 0;
  virtual void end(std::size_t id) = 0;
  // A line of its own, such as the plan of a run.
  virtual void note(std::string_view text) = 0;
};

class SilentReporter : public Reporter {
 public:
  std::size_t begin(ProgressTask task) override;
  void advance(std::size_t id, std::uint64_t n) override;
  void tell(std::size_t id, std::string text) override;
  void end(std::size_t id) override;
  void note(std::string_view text) override;
};

struct ConsoleOptions {
  bool terminal = false;  // rewrite one line, else print lines
  std::function<void(std::string_view)> write;  // takes the text as it is
  std::function<double()> seconds;              // a clock that never goes back
  // The width of the terminal as it is now; empty, or 0: unknown.
  std::function<std::size_t()> columns = {};
};

// Options that write to `stream` and know whether it is a terminal.
ConsoleOptions console_options(std::FILE* stream);

// On a terminal: one line, rewritten at most five times a second and cut to its
// width. Elsewhere: a line every ten seconds at most, and every hundredth of
// the time that a task has taken. Each has the share done, the rate and the
// time left; the end of a task that was shown, or took 1 s, gets a last line.
class ConsoleReporter : public Reporter {
 public:
  explicit ConsoleReporter(ConsoleOptions options);
  std::size_t begin(ProgressTask task) override;
  void advance(std::size_t id, std::uint64_t n) override;
  void tell(std::size_t id, std::string text) override;
  void end(std::size_t id) override;
  void note(std::string_view text) override;

 private:
  struct Running {
    std::size_t id = 0;
    ProgressTask task{};
    std::string told{};
    std::uint64_t done = 0;
    double started = 0;
    bool was_shown = false;
  };

  std::vector<Running>::iterator find(std::size_t id);
  void print(const Running& running, double now);

  ConsoleOptions options_;
  std::mutex mutex_;
  std::vector<Running> running_;  // the innermost task last
  std::size_t next_id_ = 0;
  double last_shown_ = 0;   // when a line was last printed
  bool line_open_ = false;  // the terminal's line awaits its newline
};

// "analyze 37% (1,234 of 3,300 tokens), 812 tokens/s, 00:02 left"; the last
// part is the time taken when all is done or the total is unknown. The unit
// "bytes" is shown as KiB, MiB, … With `told` the line is "tune 37% (step 3 of
// 8, loss 2.1), 812 tokens/s, 00:02 left". `done` leaves out what was before.
std::string progress_line(
    const ProgressTask& task,
    std::uint64_t done,
    double elapsed_seconds,
    std::string_view told = {});

// Counts one task, from its construction to its destruction; for nobody where
// `reporter` is null.
class Progress {
 public:
  Progress(
      Reporter* reporter,
      std::string label,
      std::uint64_t total,
      std::string unit,
      std::uint64_t before = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(std::uint64_t n = 1);
  void tell(std::string text);

 private:
  Reporter* reporter_;
  std::size_t id_ = 0;
};

}  // namespace fettle
