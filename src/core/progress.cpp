// SPDX-License-Identifier: Apache-2.0
#include "core/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"

namespace fettle {
namespace {

constexpr double kTerminalInterval = 0.2;  // seconds between lines
constexpr double kLogInterval = 10;
constexpr double kShortTask = 1;  // a quicker task never shown leaves no line
constexpr std::string_view kClearLine = "\r\x1b[K";

// "1,234,567"
std::string grouped(std::uint64_t value) {
  std::string text = fmt::format("{}", value);
  for (std::size_t i = text.size(); i > 3; i -= 3) text.insert(i - 3, ",");
  return text;
}

std::string amount(double value, const std::string& unit) {
  if (unit == "bytes") return format_bytes(static_cast<std::int64_t>(value));
  if (value >= 100 || value == std::floor(value)) {
    return grouped(static_cast<std::uint64_t>(value)) + " " + unit;
  }
  return fmt::format("{:.2f} {}", value, unit);
}

// "00:12", "3:04:05"
std::string clock_time(double seconds) {
  const auto all = static_cast<std::uint64_t>(seconds);
  const std::uint64_t hours = all / 3600;
  const std::uint64_t minutes = all / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, all % 60);
  return fmt::format("{:02}:{:02}", minutes, all % 60);
}

}  // namespace

std::string progress_line(
    const ProgressTask& task, std::uint64_t done, double elapsed_seconds) {
  const double count = static_cast<double>(done);
  const double rate = elapsed_seconds > 0 ? count / elapsed_seconds : 0;
  std::string line = task.label;
  if (task.total > 0) {
    const double total = static_cast<double>(task.total);
    line += fmt::format(
        " {:.0f}% ({} of {})",
        std::floor(100 * count / total),
        task.unit == "bytes" ? amount(count, task.unit) : grouped(done),
        amount(total, task.unit));
  } else {
    line += " " + amount(count, task.unit);
  }
  line += ", " + amount(rate, task.unit) + "/s, ";
  if (done < task.total && done > 0) {
    const double left = static_cast<double>(task.total - done) / rate;
    return line + clock_time(left) + " left";
  }
  return line + clock_time(elapsed_seconds);
}

std::size_t SilentReporter::begin(ProgressTask) { return 0; }
void SilentReporter::advance(std::size_t, std::uint64_t) {}
void SilentReporter::end(std::size_t) {}
void SilentReporter::note(std::string_view) {}

ConsoleOptions console_options(std::FILE* stream) {
  const auto write = [stream](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stream);
    std::fflush(stream);
  };
  const auto seconds = [] {
    return std::chrono::duration<double>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  return {::isatty(::fileno(stream)) == 1, write, seconds};
}

ConsoleReporter::ConsoleReporter(ConsoleOptions options)
    : options_(std::move(options)) {}

std::size_t ConsoleReporter::begin(ProgressTask task) {
  const std::lock_guard guard(mutex_);
  const std::size_t id = next_id_++;
  running_.push_back(
      {.id = id, .task = std::move(task), .started = options_.seconds()});
  return id;
}

std::vector<ConsoleReporter::Running>::iterator ConsoleReporter::find(
    std::size_t id) {
  const auto found = std::ranges::find(running_, id, &Running::id);
  FETTLE_ASSERT(found != running_.end());
  return found;
}

void ConsoleReporter::advance(std::size_t id, std::uint64_t n) {
  const std::lock_guard guard(mutex_);
  Running& running = *find(id);
  running.done += n;
  // Of nested tasks only the innermost is shown, or they would fight over the
  // line.
  if (&running != &running_.back()) return;
  const double interval = options_.terminal ? kTerminalInterval : kLogInterval;
  const double now = options_.seconds();
  if (now - std::max(running.started, last_shown_) < interval) return;
  last_shown_ = now;
  running.was_shown = true;
  print(progress_line(running.task, running.done, now - running.started));
}

void ConsoleReporter::end(std::size_t id) {
  const std::lock_guard guard(mutex_);
  const auto running = find(id);
  const double elapsed = options_.seconds() - running->started;
  if (running->was_shown || elapsed >= kShortTask) {
    print(progress_line(running->task, running->done, elapsed));
    if (line_open_) options_.write("\n");
    line_open_ = false;
  }
  running_.erase(running);
}

void ConsoleReporter::note(std::string_view text) {
  const std::lock_guard guard(mutex_);
  if (line_open_) options_.write(kClearLine);
  line_open_ = false;
  options_.write(fmt::format("{}\n", text));
}

void ConsoleReporter::print(std::string_view line) {
  if (options_.terminal) {
    options_.write(fmt::format("{}{}", kClearLine, line));
    line_open_ = true;
  } else {
    options_.write(fmt::format("{}\n", line));
  }
}

Progress::Progress(
    Reporter* reporter,
    std::string label,
    std::uint64_t total,
    std::string unit)
    : reporter_(reporter) {
  if (reporter_ == nullptr) return;
  id_ = reporter_->begin({std::move(label), total, std::move(unit)});
}

Progress::~Progress() {
  if (reporter_ != nullptr) reporter_->end(id_);
}

void Progress::advance(std::uint64_t n) {
  if (reporter_ != nullptr) reporter_->advance(id_, n);
}

}  // namespace fettle
