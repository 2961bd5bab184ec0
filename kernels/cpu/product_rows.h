// SPDX-License-Identifier: Apache-2.0
// The rows of many products with matrices, shared among threads as one run of
// work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/share.h"

namespace fettle::kernels::cpu {

// All products' rows times what one takes, which `row_work` says.
template <class Product, class Work>
std::int64_t work_of_all_rows(
    std::span<const Product> products, const Work& row_work) {
  std::int64_t all = 0;
  for (const Product& p : products) all += row_work(p) * p.matrix.rows;
  return all;
}

// Multiplies the rows that lie in [begin, end) of that work, `tile` rows at a
// time. `multiply(product, first, last)` multiplies rows of one product and
// says whether their codes are sound. False where one was not.
template <class Product, class Work, class Multiply>
bool multiply_rows_between(
    std::span<const Product> products,
    std::int64_t tile,
    const Work& row_work,
    std::int64_t begin,
    std::int64_t end,
    Multiply multiply) {
  for (const Product& p : products) {
    const std::int64_t work = row_work(p) * tile;
    const auto row_at = [&](std::int64_t place) {
      const std::int64_t tiles = (place + work - 1) / work;
      return std::clamp<std::int64_t>(tiles * tile, 0, p.matrix.rows);
    };
    const std::int64_t first = row_at(begin), last = row_at(end);
    if (first < last && !multiply(p, first, last)) return false;
    begin -= row_work(p) * p.matrix.rows;
    end -= row_work(p) * p.matrix.rows;
  }
  return true;
}

// Multiplies all rows of all products. `make()` gives each thread its own
// `multiply`.
template <class Product, class Work, class Make>
bool multiply_all_rows(
    std::span<const Product> products,
    std::int64_t tile,
    const Work& row_work,
    const Make& make) {
  std::atomic<bool> sound = true;
  const std::int64_t all = work_of_all_rows(products, row_work);
  parallel_rows(all, 1, [&](std::int64_t begin, std::int64_t end) {
    if (!multiply_rows_between(products, tile, row_work, begin, end, make())) {
      sound = false;
    }
  });
  return sound;
}

// The same of one share, where threads are at hand already.
template <class Product, class Work, class Make>
bool multiply_share(
    std::span<const Product> products,
    std::int64_t tile,
    const Work& row_work,
    const Make& make,
    const Share& share) {
  if (products.empty()) return true;
  const std::int64_t all = work_of_all_rows(products, row_work);
  return multiply_rows_between(
      products,
      tile,
      row_work,
      all * share.part / share.parts,
      all * (share.part + 1) / share.parts,
      make());
}

}  // namespace fettle::kernels::cpu
