// SPDX-License-Identifier: Apache-2.0
// How long OpenMP's threads spin before they sleep, by what else the machine
// does. Where each thread has a core, spinning for some milliseconds is fastest
// by far: decoding a small model takes a third longer without. Where other work
// wants the cores, threads spin away the time that those they wait for need,
// and the program collapses to a fraction of its share.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>

namespace fettle::kernels {

// How long this process's threads ran and waited for cores, in nanoseconds.
struct CoreTime {
  std::int64_t ran = 0;
  std::int64_t waited = 0;  // ready to run, without a core
  std::int64_t threads = 0;
};

// The sum over all threads that live; none where the kernel doesn't report it.
std::optional<CoreTime> core_time();

// How many more threads than cores there are, counting those ready to run in
// other programs and a team of `threads` here; below 1: each has a core. None
// where the kernel doesn't report it.
std::optional<std::int64_t> missing_cores(int threads);

// The state of the machine at one moment. Where the kernel does not report
// time, the machine counts as crowded: sleeping does less harm than spinning.
struct CoreSample {
  std::int64_t now = 0;  // nanoseconds since any beginning
  std::optional<CoreTime> time;
  std::optional<std::int64_t> missing;  // see missing_cores
};

// Decides from samples whether the machine is crowded: at once when threads
// waited for a core more than a quarter of the time and other programs want one
// (for a program's own threads wait for each other too), and no more after a
// while with less than a thirtieth; that while doubles each time it proves too
// short.
class CrowdSense {
 public:
  // Begins with what the process has met so far, while it was loaded.
  explicit CrowdSense(const CoreSample& first);

  bool crowded() const { return crowded_; }
  // Takes a further sample in; whether the machine is crowded now.
  bool crowded(const CoreSample& sample);

 private:
  bool crowded_ = false;
  std::int64_t sampled_ = 0;   // when
  std::int64_t waited_ = 0;    // as it was then
  std::int64_t changed_ = 0;   // when threads last waited, or crowding ended
  std::int64_t patience_ = 0;  // nanoseconds without waiting that end it
};

// libgomp spins a 3,000th of its default once it manages more threads than
// there are cores (GOMP_SPINCOUNT in its manual). While the machine is crowded,
// a guard holds so many idle threads that this is the case. Of other runtimes
// it takes nothing but these threads.
class CrowdGuard {
 public:
  // For teams of `threads`. Nobody waits in a team of one: nothing is watched.
  explicit CrowdGuard(int threads);
  ~CrowdGuard();
  CrowdGuard(const CrowdGuard&) = delete;
  CrowdGuard& operator=(const CrowdGuard&) = delete;

 private:
  void watch(int threads);

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;
  std::thread watcher_;
};

}  // namespace fettle::kernels
