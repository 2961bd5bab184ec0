// SPDX-License-Identifier: Apache-2.0
// The rows of many products with matrices, shared among threads as one run of
// work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>

#include "kernels/cpu/parallel.h"

namespace fettle::kernels::cpu {

// Multiplies all rows of all products. `row_work` is what a row of a product
// takes; rows go to a thread `tile` at a time. `make()` gives each thread its
// own f(product, first, last), which multiplies these rows and says whether
// their codes are sound. False where one was not.
template <class Product, class Work, class Make>
bool multiply_all_rows(
    std::span<const Product> products,
    std::int64_t tile,
    const Work& row_work,
    const Make& make) {
  std::int64_t all = 0;
  for (const Product& p : products) all += row_work(p) * p.matrix.rows;
  std::atomic<bool> sound = true;
  parallel_rows(all, 1, [&](std::int64_t begin, std::int64_t end) {
    auto multiply = make();
    for (const Product& p : products) {
      const std::int64_t work = row_work(p) * tile;
      const auto row_at = [&](std::int64_t place) {
        const std::int64_t tiles = (place + work - 1) / work;
        return std::clamp<std::int64_t>(tiles * tile, 0, p.matrix.rows);
      };
      const std::int64_t first = row_at(begin), last = row_at(end);
      if (first < last && !multiply(p, first, last)) {
        sound = false;
        return;
      }
      begin -= row_work(p) * p.matrix.rows;
      end -= row_work(p) * p.matrix.rows;
    }
  });
  return sound;
}

}  // namespace fettle::kernels::cpu
