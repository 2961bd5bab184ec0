// SPDX-License-Identifier: Apache-2.0
#include "cli/interrupt.h"

#include <semaphore.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string_view>
#include <thread>

#include "cli/rank_process.h"
#include "io/unfinished.h"

namespace fettle::cli {
namespace {

// Signal handlers reach nothing but globals.
std::atomic<bool> requested_stop{false};
std::atomic<bool> stops_in_order{false};  // somebody looks at requested_stop
std::atomic<bool> ends{false};
std::atomic<int> received{0};
std::atomic<bool> stopped{false};
std::atomic<const char*> said_at_stop{nullptr};
sem_t wake;
static_assert(std::atomic<bool>::is_always_lock_free);
static_assert(std::atomic<int>::is_always_lock_free);

void say(std::string_view text) {
  [[maybe_unused]] const ssize_t written =
      ::write(STDERR_FILENO, text.data(), text.size());
}

// The notice comes before the request: the program may end soon after that.
void on_signal(int signal) {
  const int error = errno;
  int none = 0;
  received.compare_exchange_strong(none, signal);
  const bool asks = stops_in_order && !requested_stop;
  if (const char* notice = said_at_stop; asks && notice != nullptr) say(notice);
  if (requested_stop.exchange(true) || !asks) {
    if (ends.exchange(true)) ::_exit(128 + signal);
    ::sem_post(&wake);
  }
  errno = error;
}

// A thread of its own, since a handler may do next to nothing.
void watch() {
  while (::sem_wait(&wake) != 0) {
  }
  const bool left = io::Unfinished::clear_all();
  say("\n" + message_prefix() +
      (left ? "stopped; go on with --resume\n" : "stopped\n"));
  ::_exit(128 + received);
}

void take_over(int signal) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(signal, &action, nullptr);
}

bool is_ignored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 &&
         action.sa_handler == SIG_IGN;
}

}  // namespace

void heed_signals() {
  ::sem_init(&wake, 0, 0);
  std::thread(watch).detach();
  take_over(SIGINT);
  take_over(SIGTERM);
  if (!is_ignored(SIGHUP)) take_over(SIGHUP);  // nohup has it ignored
}

void note_stop() { stopped = true; }

int stopped_by() { return stopped ? received.load() : 0; }

Interrupt::Interrupt(const char* notice) {
  said_at_stop = notice;
  stops_in_order = true;
}

Interrupt::~Interrupt() { stops_in_order = false; }

void Interrupt::forget() {
  requested_stop = false;
  received = 0;
}

const std::atomic<bool>& Interrupt::requested() const { return requested_stop; }

}  // namespace fettle::cli
