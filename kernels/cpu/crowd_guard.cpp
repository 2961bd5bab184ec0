// SPDX-License-Identifier: Apache-2.0
#include "kernels/crowd_guard.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <semaphore>
#include <string>
#include <system_error>

namespace fettle::kernels {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMillisecond = 1'000'000;  // nanoseconds
constexpr auto kInterval = std::chrono::milliseconds(50);
constexpr std::int64_t kLeastPatience = 300 * kMillisecond;
constexpr std::int64_t kMostPatience = 20'000 * kMillisecond;
// A sample takes some 40 microseconds a thread. Programs with many, such as a
// server of many clients, are looked at less often.
constexpr std::int64_t kThreadsAnInterval = 16;
// Crowding that is back within this time ended too early.
constexpr std::int64_t kTooEarly = 2'000 * kMillisecond;

std::int64_t steady_nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// A team of OpenMP's that does nothing but exist.
class IdleTeam {
 public:
  explicit IdleTeam(int idle_threads)
      : holder_([this, idle_threads] {
          int met = 0;
#pragma omp parallel num_threads(idle_threads + 1) reduction(+ : met)
          met += 1;
          if (met > 0) release_.acquire();  // the team ends with its thread
        }) {
  }
  ~IdleTeam() {
    release_.release();
    holder_.join();
  }
  IdleTeam(const IdleTeam&) = delete;
  IdleTeam& operator=(const IdleTeam&) = delete;

 private:
  std::binary_semaphore release_{0};
  std::thread holder_;
};

}  // namespace

std::optional<CoreTime> core_time() {
  std::error_code error;
  CoreTime sum;
  bool any = false;
  fs::directory_iterator task("/proc/self/task", error);
  for (; !error && task != fs::directory_iterator(); task.increment(error)) {
    // "time on a core, time waiting for one, time slices"
    std::ifstream file(task->path() / "schedstat");
    std::int64_t ran = 0;
    std::int64_t waited = 0;
    if (!(file >> ran >> waited)) continue;
    any = true;
    sum.ran += ran;
    sum.waited += waited;
    ++sum.threads;
  }
  return any ? std::optional(sum) : std::nullopt;
}

std::optional<std::int64_t> missing_cores(int threads) {
  // "0.20 0.18 0.12 3/80 11206": three of 80 threads are ready to run.
  std::ifstream load("/proc/loadavg");
  std::string average;
  std::int64_t ready = 0;
  load >> average >> average >> average >> ready;
  std::error_code error;
  fs::directory_iterator task("/proc/self/task", error);
  if (!load || error) return std::nullopt;
  for (; !error && task != fs::directory_iterator(); task.increment(error)) {
    // "11206 (name) R ..": the name may hold anything but its end.
    std::ifstream file(task->path() / "stat");
    std::string line;
    std::getline(file, line);
    const auto end = line.rfind(") ");
    if (end != std::string::npos && line.substr(end + 2, 1) == "R") --ready;
  }
  return ready + threads - omp_get_num_procs();
}

CrowdSense::CrowdSense(const CoreSample& first)
    : sampled_(first.now), changed_(first.now) {
  if (first.time) {
    const std::int64_t ran = first.time->ran;
    waited_ = first.time->waited;
    crowded_ = first.missing.value_or(1) > 0 && waited_ > (ran + waited_) / 10;
  } else {
    crowded_ = true;
  }
  if (crowded_) patience_ = kLeastPatience;
}

bool CrowdSense::crowded(const CoreSample& sample) {
  if (!sample.time) return crowded_ = true;
  const std::int64_t now = sample.now;
  const std::int64_t waited = sample.time->waited - waited_;
  // Threads that sleep wait less often than those that spin.
  const std::int64_t part = crowded_ ? 30 : 4;
  const bool waits =
      sample.missing.value_or(1) > 0 && waited > (now - sampled_) / part;
  sampled_ = now;
  waited_ += waited;
  if (waits) {
    if (!crowded_) {
      const bool early = patience_ > 0 && now - changed_ < kTooEarly;
      patience_ =
          early ? std::min(2 * patience_, kMostPatience) : kLeastPatience;
    }
    crowded_ = true;
    changed_ = now;
  } else if (crowded_ && now - changed_ >= patience_) {
    crowded_ = false;
    changed_ = now;
  }
  return crowded_;
}

CrowdGuard::CrowdGuard(int threads) {
  if (threads < 2) return;
  watcher_ = std::thread([this, threads] { watch(threads); });
}

CrowdGuard::~CrowdGuard() {
  if (!watcher_.joinable()) return;
  {
    const std::lock_guard guard(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  watcher_.join();
}

void CrowdGuard::watch(int threads) {
  const int idle_threads = std::max(1, omp_get_num_procs() + 1 - threads);
  const auto sample = [threads] {
    return CoreSample{
        steady_nanoseconds(), core_time(), missing_cores(threads)};
  };
  const CoreSample first = sample();
  CrowdSense sense(first);
  std::int64_t living = first.time ? first.time->threads : 1;
  std::optional<IdleTeam> team;
  std::unique_lock lock(mutex_);
  do {
    if (!sense.crowded()) {
      team.reset();
    } else if (!team) {
      team.emplace(idle_threads);
    }
    const auto interval = kInterval * (1 + living / kThreadsAnInterval);
    if (!changed_.wait_for(lock, interval, [this] { return ends_; })) {
      const CoreSample now = sample();
      if (now.time) living = now.time->threads;
      sense.crowded(now);
    }
  } while (!ends_);
}

}  // namespace fettle::kernels
