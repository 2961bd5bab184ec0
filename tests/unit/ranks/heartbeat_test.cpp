// SPDX-License-Identifier: Apache-2.0
#include "ranks/heartbeat.h"

#include <catch2/catch.hpp>
#include <future>
#include <map>
#include <stdexcept>

using namespace fettle::ranks;
using namespace std::chrono_literals;

namespace {

struct Shared {
  std::mutex mutex;
  std::map<std::string, std::string> texts;
  bool gone = false;
  std::mutex frozen;
};

class MemoryBoard : public Board {
 public:
  explicit MemoryBoard(std::shared_ptr<Shared> shared)
      : shared_(std::move(shared)) {}
  void set(const std::string& key, const std::string& text) override {
    const auto lock = reach();
    shared_->texts[key] = text;
  }
  std::optional<std::string> get(const std::string& key) override {
    const auto lock = reach();
    const auto found = shared_->texts.find(key);
    if (found == shared_->texts.end()) return std::nullopt;
    return found->second;
  }
  std::string wait(const std::string& key) override { return *get(key); }
  std::string set_first(
      const std::string& key, const std::string& text) override {
    const auto lock = reach();
    return shared_->texts.emplace(key, text).first->second;
  }
  std::unique_ptr<Board> another() override {
    return std::make_unique<MemoryBoard>(shared_);
  }

 private:
  std::unique_lock<std::mutex> reach() {
    const std::scoped_lock waits(shared_->frozen);
    std::unique_lock lock(shared_->mutex);
    if (shared_->gone) throw std::runtime_error("no route");
    return lock;
  }
  std::shared_ptr<Shared> shared_;
};

// One rank of two that waits to hear of a loss.
struct Rank {
  Rank(std::int64_t rank, const std::shared_ptr<Shared>& shared)
      : heartbeat(
            std::make_unique<MemoryBoard>(shared),
            {.rank = rank,
             .size = 2,
             .serves = false,
             .beat = 5ms,
             .silence = 100ms,
             .lingering = 1ms,
             .on_loss = [this](const std::string& text) {
               loss.set_value(text);
             }}) {}

  bool hears_within(std::chrono::milliseconds time) {
    return heard.wait_for(time) == std::future_status::ready;
  }

  std::promise<std::string> loss;
  std::future<std::string> heard = loss.get_future();
  Heartbeat heartbeat;
};

}  // namespace

TEST_CASE("a rank that no longer beats is lost, and one that beats is not") {
  const auto shared = std::make_shared<Shared>();
  Rank here(0, shared);
  auto other = std::make_unique<Rank>(1, shared);
  CHECK_FALSE(here.hears_within(150ms));
  here.heartbeat.begin("layer 3");
  other.reset();
  REQUIRE(here.hears_within(5s));
  const std::string text = here.heard.get();
  CHECK_THAT(text, Catch::Contains("[ranks] rank 1 has not been heard of"));
  CHECK_THAT(text, Catch::Contains("layer 3") && Catch::Contains("--resume"));
}

TEST_CASE("a rank that never beats is lost too") {
  const auto shared = std::make_shared<Shared>();
  Rank here(0, shared);
  REQUIRE(here.hears_within(5s));
  CHECK_THAT(here.heard.get(), Catch::Contains("rank 1 has not been heard"));
}

TEST_CASE("a rank that fails says why, and the first reason stays") {
  const auto shared = std::make_shared<Shared>();
  Rank here(0, shared);
  Rank other(1, shared);
  other.heartbeat.fail("[data] x: no such file");
  REQUIRE(here.hears_within(5s));
  CHECK_THAT(
      here.heard.get(),
      Catch::Contains("rank 1 ended: [data] x: no such file"));
}

TEST_CASE("a call that failed is explained by the rank that is gone") {
  const auto shared = std::make_shared<Shared>();
  Rank here(0, shared);
  {
    Rank other(1, shared);
    std::this_thread::sleep_for(30ms);
  }
  CHECK_THAT(
      here.heartbeat.explain("connection reset"),
      Catch::Contains("rank 1 ended"));
  CHECK_FALSE(here.hears_within(150ms));  // it is said once
}

TEST_CASE("a failed call that nobody explains is told as it is") {
  const auto shared = std::make_shared<Shared>();
  Rank here(0, shared);
  const Rank other(1, shared);
  CHECK_THAT(
      here.heartbeat.explain("connection reset"),
      Catch::Contains("rank 0 lost the connection") &&
          Catch::Contains("connection reset"));
}

TEST_CASE("without the board, rank 0 that keeps it is lost") {
  const auto shared = std::make_shared<Shared>();
  Rank here(1, shared);
  {
    const std::scoped_lock lock(shared->mutex);
    shared->gone = true;
  }
  REQUIRE(here.hears_within(5s));
  CHECK_THAT(here.heard.get(), Catch::Contains("rank 0 ended or can't"));
}

TEST_CASE("a board that does not answer is rank 0 that is frozen") {
  const auto shared = std::make_shared<Shared>();
  std::unique_lock frozen(shared->frozen, std::defer_lock);
  Rank here(1, shared);
  frozen.lock();
  CHECK(here.hears_within(5s));
  frozen.unlock();
  CHECK_THAT(here.heard.get(), Catch::Contains("rank 0 has not been heard"));
}

TEST_CASE("a rank that leaves in good order hears of nothing") {
  const auto shared = std::make_shared<Shared>();
  Rank here(0, shared);
  {
    Rank other(1, shared);
    std::this_thread::sleep_for(20ms);
    here.heartbeat.stop();
  }
  CHECK_FALSE(here.hears_within(150ms));
}
