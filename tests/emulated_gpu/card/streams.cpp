// SPDX-License-Identifier: Apache-2.0
#include "streams.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace fettle::kernels::emulated {
namespace {

thread_local c10::StreamId current = 0;

void merge(Known& into, const Known& from) {
  for (const auto& [stream, ticket] : from) {
    into[stream] = std::max(into[stream], ticket);
  }
}

void run_late(Queue& queue) {
  for (auto& work : std::exchange(queue.late, {})) work();
}

}  // namespace

Queue& Streams::queue(c10::StreamId id) {
  Queue& queue = queues_[id];
  queue.id = id;
  return queue;
}

Use Streams::begin(Queue& queue) {
  run_late(queue);
  merge(queue.known, host_);
  return {queue.id, ++queue.last};
}

Use Streams::put_off(Queue& queue, std::function<void()> work) {
  merge(queue.known, host_);
  queue.late.push_back(std::move(work));
  return {queue.id, ++queue.last};
}

void Streams::wait(Queue& queue) {
  learn(all_of(queue));
  ++waits_;
}

Known Streams::all_of(Queue& queue) {
  run_late(queue);
  Known known = queue.known;
  known[queue.id] = queue.last;
  return known;
}

void Streams::learn(Queue& queue, const Known& known) {
  merge(queue.known, known);
}

void Streams::learn(const Known& known) { merge(host_, known); }

bool Streams::comes_after(const Queue& queue, const Use& use) const {
  if (use.ticket == 0 || use.stream == queue.id) return true;
  const auto told = [&](const Known& known) {
    const auto found = known.find(use.stream);
    return found != known.end() && found->second >= use.ticket;
  };
  return told(queue.known) || told(host_);
}

Streams& streams() {
  static auto* all = new Streams;  // outlives every tensor
  return *all;
}

std::recursive_mutex& card_lock() {
  static auto* lock = new std::recursive_mutex;
  return *lock;
}

c10::StreamId current_stream() { return current; }

c10::StreamId exchange_stream(c10::StreamId to) {
  return std::exchange(current, to);
}

void race(const std::string& what) {
  std::fprintf(stderr, "emulated card: %s\n", what.c_str());
  std::abort();
}

}  // namespace fettle::kernels::emulated
