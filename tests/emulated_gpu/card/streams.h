// SPDX-License-Identifier: Apache-2.0
// The emulated card's streams. Work is numbered, and each stream and the host
// know of every other stream up to which of its work has ended: work that
// should have been waited for is found so, whenever it really ran. Copies that
// the host doesn't wait for run as late as they may.
#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace fettle::kernels::emulated {

// A piece of work: the number `ticket` of a stream.
struct Use {
  c10::StreamId stream = 0;
  std::uint64_t ticket = 0;  // 0: none
};

// Of each stream, the last ticket known to have ended.
using Known = std::map<c10::StreamId, std::uint64_t>;

struct Queue {
  c10::StreamId id = 0;
  std::uint64_t last = 0;  // ticket given out
  Known known;
  std::vector<std::function<void()>> late;  // to run before what comes next
};

// What is below is called with card_lock() held.
class Streams {
 public:
  Queue& queue(c10::StreamId id);

  // Numbers a piece of work, which runs now, after all before it.
  Use begin(Queue& queue);
  // Numbers it and puts it off until the stream's next work, or until it is
  // waited for.
  Use put_off(Queue& queue, std::function<void()> work);
  // The host waits for all work of the stream.
  void wait(Queue& queue);
  std::int64_t waits() const { return waits_; }  // by the host so far
  // What a wait for all of the stream's work so far makes known.
  Known all_of(Queue& queue);
  void learn(Queue& queue, const Known& known);
  void learn(const Known& known);  // the host
  // Whether work given to `queue` now comes after `use`.
  bool comes_after(const Queue& queue, const Use& use) const;

 private:
  std::map<c10::StreamId, Queue> queues_;
  Known host_;
  std::int64_t waits_ = 0;
};

Streams& streams();
std::recursive_mutex& card_lock();

// The stream of this thread's work, and another one in its place.
c10::StreamId current_stream();
c10::StreamId exchange_stream(c10::StreamId to);

// Ends the program, for what a card would answer with wrong numbers at times.
[[noreturn]] void race(const std::string& what);

}  // namespace fettle::kernels::emulated
