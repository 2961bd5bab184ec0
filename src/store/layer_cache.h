// SPDX-License-Identifier: Apache-2.0
// Hands out layers in the order a sweep asks for them and fetches the next one
// on a thread of its own meanwhile. Layers that fit the budget stay resident
// between sweeps: the first ones asked for are kept, since a cyclic sweep gains
// nothing from keeping the most recent.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>

#include "core/stopwatch.h"

namespace fettle::store {

template <typename Layer>
class LayerCache {
 public:
  using Load = std::function<std::shared_ptr<Layer>(std::int64_t)>;
  using Size = std::function<std::int64_t(std::int64_t)>;

  // `load` makes layer l (called from the fetching thread too); `size` gives
  // its bytes. At most `resident_bytes` are kept beyond the layer in use and
  // the one being fetched.
  LayerCache(Load load, Size size, std::int64_t resident_bytes)
      : load_(std::move(load)),
        size_(std::move(size)),
        resident_bytes_(resident_bytes) {}

  // Layer `layer`; begins to fetch `next` unless that is -1 or at hand. An
  // error of `load` is thrown here, by the call that asked for that layer.
  std::shared_ptr<Layer> acquire(std::int64_t layer, std::int64_t next) {
    std::shared_ptr<Layer> result = take(layer);
    if (next >= 0 && !resident_.contains(next) && fetching_ != next) {
      drop_fetch();
      fetching_ = next;
      fetch_ = std::async(
          std::launch::async, [this, next] { return timed_load(next); });
    }
    return result;
  }

  std::int64_t resident_bytes() const { return used_; }
  // Time that acquire() has taken to have layers that were not resident.
  double waited_seconds() const { return waiting_.seconds(); }
  // Time that loading has taken, mostly beside what the caller did meanwhile.
  double loading_seconds() const { return loading_.seconds(); }

  ~LayerCache() { drop_fetch(); }
  LayerCache(const LayerCache&) = delete;
  LayerCache& operator=(const LayerCache&) = delete;

 private:
  std::shared_ptr<Layer> take(std::int64_t layer) {
    if (const auto kept = resident_.find(layer); kept != resident_.end()) {
      return kept->second;
    }
    const std::shared_ptr<Layer> loaded = wait_for(layer);
    const std::int64_t bytes = size_(layer);
    if (used_ + bytes <= resident_bytes_) {
      used_ += bytes;
      resident_[layer] = loaded;
    }
    return loaded;
  }

  std::shared_ptr<Layer> wait_for(std::int64_t layer) {
    const TimeSpent::Piece timed(waiting_);
    if (fetching_ != layer) return timed_load(layer);
    fetching_ = -1;
    return fetch_.get();
  }

  std::shared_ptr<Layer> timed_load(std::int64_t layer) {
    const TimeSpent::Piece timed(loading_);
    return load_(layer);
  }

  // A fetch that nobody asked for any more: its result and errors don't matter.
  void drop_fetch() {
    if (fetch_.valid()) fetch_.wait();
    fetch_ = {};
    fetching_ = -1;
  }

  Load load_;
  Size size_;
  std::int64_t resident_bytes_;
  std::int64_t used_ = 0;
  TimeSpent waiting_, loading_;
  std::map<std::int64_t, std::shared_ptr<Layer>> resident_;
  std::int64_t fetching_ = -1;
  std::future<std::shared_ptr<Layer>> fetch_;
};

}  // namespace fettle::store
