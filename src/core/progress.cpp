// SPDX-License-Identifier: Apache-2.0
#include "core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
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
constexpr double kLogShare = 0.01;  // of the time a task has taken
constexpr double kShortTask = 1;    // a quicker task never shown leaves no line
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
    const ProgressTask& task,
    std::uint64_t done,
    double elapsed_seconds,
    std::string_view told) {
  const std::uint64_t all = task.before + done;
  const double count = static_cast<double>(all);
  const double rate =
      elapsed_seconds > 0 ? static_cast<double>(done) / elapsed_seconds : 0;
  std::string line = task.label;
  if (task.total > 0) {
    const double total = static_cast<double>(task.total);
    const std::string numbers = fmt::format(
        "{} of {}",
        task.unit == "bytes" ? amount(count, task.unit) : grouped(all),
        amount(total, task.unit));
    line += fmt::format(
        " {:.0f}% ({})",
        std::floor(100 * count / total),
        told.empty() ? std::string_view(numbers) : told);
  } else {
    line += " " + amount(count, task.unit);
  }
  line += ", " + amount(rate, task.unit) + "/s, ";
  if (all < task.total && done > 0) {
    const double left = static_cast<double>(task.total - all) / rate;
    return line + clock_time(left) + " left";
  }
  return line + clock_time(elapsed_seconds);
}

std::size_t SilentReporter::begin(ProgressTask) { return 0; }
void SilentReporter::advance(std::size_t, std::uint64_t) {}
void SilentReporter::tell(std::size_t, std::string) {}
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
  const auto columns = [stream]() -> std::size_t {
    struct winsize size {};
    return ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
  };
  return {::isatty(::fileno(stream)) == 1, write, seconds, columns};
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
  // Only the innermost of nested tasks is shown, or they would fight over the
  // line.
  if (&running != &running_.back()) return;
  const double now = options_.seconds();
  const double interval =
      options_.terminal
          ? kTerminalInterval
          : std::max(kLogInterval, (now - running.started) * kLogShare);
  if (now - std::max(running.started, last_shown_) < interval) return;
  last_shown_ = now;
  running.was_shown = true;
  print(running, now);
}

void ConsoleReporter::tell(std::size_t id, std::string text) {
  const std::lock_guard guard(mutex_);
  find(id)->told = std::move(text);
}

void ConsoleReporter::end(std::size_t id) {
  const std::lock_guard guard(mutex_);
  const auto running = find(id);
  const double now = options_.seconds();
  if (running->was_shown || now - running->started >= kShortTask) {
    print(*running, now);
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

void ConsoleReporter::print(const Running& running, double now) {
  std::string line = progress_line(
      running.task, running.done, now - running.started, running.told);
  if (options_.terminal) {
    // A line that wraps can't be rewritten.
    const std::size_t columns = options_.columns ? options_.columns() : 0;
    if (columns > 1) line.resize(std::min(line.size(), columns - 1));
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
    std::string unit,
    std::uint64_t before)
    : reporter_(reporter) {
  if (reporter_ == nullptr) return;
  id_ = reporter_->begin({std::move(label), total, std::move(unit), before});
}

Progress::~Progress() {
  if (reporter_ != nullptr) reporter_->end(id_);
}

void Progress::advance(std::uint64_t n) {
  if (reporter_ != nullptr) reporter_->advance(id_, n);
}

void Progress::tell(std::string text) {
  if (reporter_ != nullptr) reporter_->tell(id_, std::move(text));
}

}  // namespace fettle
