// SPDX-License-Identifier: Apache-2.0
#include "kernels/crowd_guard.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <semaphore>
#include <system_error>

namespace fettle::kernels {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMillisecond = 1'000'000;  // nanoseconds
constexpr auto kInterval = std::chrono::milliseconds(50);
constexpr std::int64_t kLeastPatience = 300 * kMillisecond;
constexpr std::int64_t kMostPatience = 20'000 * kMillisecond;
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
  }
  return any ? std::optional(sum) : std::nullopt;
}

CrowdSense::CrowdSense(std::int64_t now, std::optional<CoreTime> time)
    : sampled_(now), changed_(now) {
  if (time) {
    waited_ = time->waited;
    crowded_ = time->waited > (time->ran + time->waited) / 10;
  } else {
    crowded_ = true;
  }
  if (crowded_) patience_ = kLeastPatience;
}

bool CrowdSense::crowded(std::int64_t now, std::optional<CoreTime> time) {
  if (!time) return crowded_ = true;
  // Threads that sleep wait less often than those that spin.
  const std::int64_t part = crowded_ ? 30 : 10;
  const bool waits = time->waited - waited_ > (now - sampled_) / part;
  sampled_ = now;
  waited_ = time->waited;
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
  const int idle_threads = std::max(1, omp_get_num_procs() + 1 - threads);
  watcher_ = std::thread([this, idle_threads] { watch(idle_threads); });
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

void CrowdGuard::watch(int idle_threads) {
  CrowdSense sense(steady_nanoseconds(), core_time());
  std::optional<IdleTeam> team;
  std::unique_lock lock(mutex_);
  do {
    if (!sense.crowded()) {
      team.reset();
    } else if (!team) {
      team.emplace(idle_threads);
    }
    if (!changed_.wait_for(lock, kInterval, [this] { return ends_; })) {
      sense.crowded(steady_nanoseconds(), core_time());
    }
  } while (!ends_);
}

}  // namespace fettle::kernels
