// SPDX-License-Identifier: Apache-2.0
// Hands the requests of many clients' threads to the one thread that has the
// model, and what it decodes back to them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "decode/engine.h"
#include "serve/job.h"

namespace fettle::serve {

// Sums since the server began, and what it has now.
struct ServedCounts {
  std::int64_t requests = 0;   // taken in
  std::int64_t refused = 0;    // for want of room in the queue
  std::int64_t abandoned = 0;  // by their clients
  std::int64_t prompt_tokens = 0;
  std::int64_t known_tokens = 0;  // of these, of beginnings that were there
  std::int64_t new_tokens = 0;
  std::int64_t choices = 0;  // now decoding or waiting
};

class Dispatcher {
 public:
  // At most `most` choices are decoded or wait at a time. Keeps a reference.
  Dispatcher(decode::Engine& engine, std::int64_t most);

  // Takes a request's choices in. Throws ApiError: 429 where too many wait, 503
  // once the server ends. Called by any thread.
  std::shared_ptr<Job> submit(std::vector<decode::Request> choices);

  // Decodes until `stop` says so; then takes no more requests and ends those
  // that are there within `grace`, the rest as cancelled. Called by the thread
  // that has the model.
  void run(const std::function<bool()>& stop, std::chrono::milliseconds grace);

  ServedCounts counts() const;

 private:
  struct Arrival {
    std::shared_ptr<Job> job;
    std::vector<decode::Request> choices;
  };

  void take_in();
  void begin(
      const std::shared_ptr<Job>& job,
      std::size_t choice,
      decode::Request request);
  void end(const std::shared_ptr<Job>& job, Piece piece);

  decode::Engine& engine_;
  const std::int64_t most_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Arrival> arrivals_;
  ServedCounts counts_;
  bool ending_ = false;
  std::string failure_;  // of the step that cancels, by the model's thread
};

}  // namespace fettle::serve
