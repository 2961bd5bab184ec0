// SPDX-License-Identifier: Apache-2.0
#include "store/layer_cache.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/error.h"

using fettle::UserError;
using fettle::store::LayerCache;

namespace {

struct Layer {
  std::int64_t index;
};

// A loader that notes what it was asked for, and by which thread.
struct Loader {
  std::mutex mutex;
  std::vector<std::int64_t> loads;
  std::vector<std::thread::id> threads;
  std::int64_t failing = -1;

  std::shared_ptr<Layer> load(std::int64_t layer) {
    const std::lock_guard lock(mutex);
    loads.push_back(layer);
    threads.push_back(std::this_thread::get_id());
    if (layer == failing) throw UserError("store", "layer", "can't be read");
    return std::make_shared<Layer>(Layer{layer});
  }

  LayerCache<Layer> cache(std::int64_t resident_bytes) {
    return LayerCache<Layer>(
        [this](std::int64_t layer) { return load(layer); },
        [](std::int64_t) { return std::int64_t{100}; },
        resident_bytes);
  }
};

void sweep(LayerCache<Layer>& cache, std::int64_t layers) {
  for (std::int64_t l = 0; l < layers; ++l) {
    const auto layer = cache.acquire(l, l + 1 < layers ? l + 1 : -1);
    CHECK(layer->index == l);
  }
}

}  // namespace

TEST_CASE("a sweep loads every layer once, in order, ahead of its use") {
  Loader loader;
  auto cache = loader.cache(0);
  sweep(cache, 5);
  CHECK(loader.loads == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  // Only the first could not be fetched before it was asked for.
  CHECK(loader.threads[0] == std::this_thread::get_id());
  for (int l = 1; l < 5; ++l) {
    CHECK(loader.threads[l] != std::this_thread::get_id());
  }
}

TEST_CASE("fetching goes on while the caller works") {
  std::atomic<bool> fetched = false;
  LayerCache<Layer> cache(
      [&](std::int64_t layer) {
        if (layer == 1) fetched = true;
        return std::make_shared<Layer>(Layer{layer});
      },
      [](std::int64_t) { return std::int64_t{1}; },
      0);
  cache.acquire(0, 1);
  const auto limit =
      std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!fetched && std::chrono::steady_clock::now() < limit) {
    std::this_thread::yield();
  }
  CHECK(fetched);
}

TEST_CASE("the first layers that fit the budget stay, the rest is reread") {
  Loader loader;
  auto cache = loader.cache(250);  // two layers of 100 bytes
  sweep(cache, 4);
  CHECK(cache.resident_bytes() == 200);
  loader.loads.clear();
  sweep(cache, 4);
  CHECK(loader.loads == std::vector<std::int64_t>{2, 3});
  CHECK(cache.resident_bytes() == 200);
}

TEST_CASE("without a budget nothing is kept alive") {
  Loader loader;
  auto cache = loader.cache(0);
  std::weak_ptr<Layer> seen = cache.acquire(0, -1);
  CHECK(seen.expired());
  auto roomy = loader.cache(100);
  seen = roomy.acquire(0, -1);
  CHECK_FALSE(seen.expired());
}

TEST_CASE("a fetch that is not asked for is dropped") {
  Loader loader;
  auto cache = loader.cache(0);
  cache.acquire(0, 1);
  CHECK(cache.acquire(3, 2)->index == 3);
  CHECK(cache.acquire(2, -1)->index == 2);
  CHECK(cache.acquire(1, -1)->index == 1);
}

TEST_CASE("an error of a load surfaces where that layer is asked for") {
  Loader loader;
  loader.failing = 1;
  auto cache = loader.cache(1000);
  CHECK_NOTHROW(cache.acquire(0, 1));  // its fetch fails in the background
  CHECK_THROWS_AS(cache.acquire(1, 2), UserError);
  CHECK_THROWS_AS(cache.acquire(1, 2), UserError);  // and when loaded directly
  CHECK(cache.resident_bytes() == 100);

  loader.failing = -1;
  CHECK(cache.acquire(1, 2)->index == 1);
  CHECK(cache.acquire(2, -1)->index == 2);

  loader.failing = 3;
  cache.acquire(0, 3);
  CHECK(cache.acquire(4, -1)->index == 4);  // nobody asks for 3 any more
}

TEST_CASE("only layers that are not resident are waited for") {
  constexpr auto kLoad = std::chrono::milliseconds(20);
  LayerCache<Layer> cache(
      [&](std::int64_t layer) {
        std::this_thread::sleep_for(kLoad);
        return std::make_shared<Layer>(Layer{layer});
      },
      [](std::int64_t) { return std::int64_t{100}; },
      100);
  CHECK(cache.waited_seconds() == 0.0);
  cache.acquire(0, -1);
  const double once = cache.waited_seconds();
  CHECK(once >= 0.02);
  cache.acquire(0, -1);
  CHECK(cache.waited_seconds() == once);
  cache.acquire(1, -1);
  cache.acquire(1, -1);
  CHECK(cache.waited_seconds() >= once + 0.04);
}
