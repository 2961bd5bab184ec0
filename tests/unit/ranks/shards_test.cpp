// SPDX-License-Identifier: Apache-2.0
#include "ranks/shards.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <mutex>

#include "ranks/ordered_sum.h"
#include "thread_group.h"

using namespace fettle::ranks;

namespace {

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.dtype() == b.dtype() &&
         std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

// What shard s gives: numbers whose sum depends on the order, in two types, a
// maximum, and a tensor that is longer than a slab's part.
std::vector<at::Tensor> values_of(std::int64_t s) {
  const at::Tensor x = at::arange(1003, at::kFloat).add(1.37F * s).sin();
  return {
      x.view({17, 59}),
      x.to(at::kDouble).mul(1e9).narrow(0, 0, 7).contiguous(),
      x.narrow(0, 0, 5).clone(),
      at::full({1}, s, at::kLong)};
}

const std::vector<Reduction> kHow{
    Reduction::kSum, Reduction::kSum, Reduction::kMax, Reduction::kSum};

std::vector<at::Tensor> sums_on(std::int64_t size, std::int64_t shards) {
  std::vector<at::Tensor> first;
  std::mutex mutex;
  as_ranks(size, [&](Group& group) {
    const Team team{&group, shards};
    ShardSum own(kHow);
    for (std::int64_t s = 0; s < team.own().count; ++s) {
      own.add({team.own().first + s, 1, values_of(team.own().first + s)});
    }
    std::vector<at::Tensor> into;
    for (const at::Tensor& t : values_of(0)) into.push_back(at::empty_like(t));
    sum_over_ranks(team, std::move(own), into);
    const std::scoped_lock lock(mutex);
    if (first.empty()) first = into;
    for (std::size_t i = 0; i < into.size(); ++i) {
      // Catch's assertions are for one thread.
      if (!same_bits(into[i], first[i])) throw std::runtime_error("ranks");
    }
  });
  return first;
}

}  // namespace

TEST_CASE("neighbours are added in pairs, and what is left at the end") {
  const auto number = [](float x) { return at::full({1}, x); };
  ShardSum sum({Reduction::kSum});
  // (1 + 1e8) + (-1e8 + 1), then 3: fp32 loses every 1 beside 1e8.
  const float values[] = {1, 1e8F, -1e8F, 1, 3};
  for (std::int64_t s = 0; s < 5; ++s) sum.add({s, 1, {number(values[s])}});
  CHECK(sum.partials().size() == 2);
  CHECK(std::move(sum).total().front().item<float>() == 3.0F);
}

TEST_CASE("sums over shards have the same bits on any number of ranks") {
  for (const std::int64_t shards : {8, 6, 5}) {
    const auto alone = sums_on(1, shards);
    CHECK(alone[3].item<std::int64_t>() == shards * (shards - 1) / 2);
    for (const std::int64_t size : {2, 3, 4, 5}) {
      const auto sums = sums_on(size, shards);
      for (std::size_t i = 0; i < sums.size(); ++i) {
        CHECK(same_bits(sums[i], alone[i]));
      }
    }
  }
  // The order matters for these values, or the case shows nothing.
  at::Tensor straight = values_of(0)[0].clone();
  for (std::int64_t s = 1; s < 8; ++s) straight.add_(values_of(s)[0]);
  CHECK_FALSE(same_bits(straight, sums_on(1, 8)[0]));
}

TEST_CASE("a sum of more elements than a slab holds is a sum of slabs") {
  constexpr std::int64_t kMany = (4 << 20) + 3;
  as_ranks(2, [&](Group& group) {
    ShardSum own({Reduction::kSum});
    own.add({group.rank(), 1, {at::arange(kMany, at::kFloat)}});
    const at::Tensor into = at::empty({kMany});
    sum_over_ranks({&group, 2}, std::move(own), {into});
    if (!at::equal(into, at::arange(kMany, at::kFloat) * 2)) {
      throw std::runtime_error("sum");
    }
  });
}

TEST_CASE("a sum may come to one rank alone") {
  const auto everywhere = sums_on(1, 8);
  for (const std::int64_t owner : {0, 2}) {
    as_ranks(3, [&](Group& group) {
      const Team team{&group, 8};
      // The first for one rank, the others for all.
      auto how = kHow;
      how[0] = {Reduction::kSum, owner};
      ShardSum own(how);
      for (std::int64_t s = 0; s < team.own().count; ++s) {
        own.add({team.own().first + s, 1, values_of(team.own().first + s)});
      }
      std::vector<at::Tensor> into;
      for (const at::Tensor& t : values_of(0))
        into.push_back(at::zeros_like(t));
      sum_over_ranks(team, std::move(own), into);
      for (std::size_t i = 0; i < into.size(); ++i) {
        const bool has = i > 0 || group.rank() == owner;
        if (same_bits(into[i], everywhere[i]) != has) {
          throw std::runtime_error("owner");
        }
      }
    });
  }
}

TEST_CASE("values of one rank are shared, and those of all added up") {
  as_ranks(3, [](Group& group) {
    // Of several types, with odd ends between them, one not contiguous.
    const auto values = [](std::int64_t of) {
      return std::vector<at::Tensor>{
          at::full({3}, of, at::kByte),
          at::full({2, 2}, 0.5 + static_cast<double>(of), at::kDouble),
          at::full({4, 3}, static_cast<float>(of), at::kFloat).t(),
          at::empty({0}, at::kFloat),
          at::full({5 << 20}, static_cast<float>(of), at::kFloat)};
    };
    const auto mine = values(group.rank());
    share(group, mine, 1);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (!at::equal(mine[i], values(1)[i])) throw std::runtime_error("share");
    }
    at::Tensor numbers = at::zeros({2, 3}, at::kDouble);
    numbers.select(1, group.rank()).fill_(1.5);
    add_up(group, numbers);
    if (!at::equal(numbers, at::full({2, 3}, 1.5, at::kDouble))) {
      throw std::runtime_error("add_up");
    }
  });
}

TEST_CASE("runs of neighbours have about the same weight") {
  using Starts = std::vector<std::size_t>;
  CHECK(even_runs({1, 1, 1, 1}, 2) == Starts{0, 2, 4});
  CHECK(even_runs({9, 1, 1, 1}, 2) == Starts{0, 1, 4});
  CHECK(even_runs({5}, 3) == Starts{0, 0, 1, 1});
  CHECK(even_runs({}, 2) == Starts{0, 0, 0});
  CHECK(even_runs({3, 4}, 1) == Starts{0, 2});
}

TEST_CASE("a rank's partial sums are as its shards' place says") {
  const auto counts = [](std::int64_t first, std::int64_t count) {
    std::vector<std::int64_t> result;
    for (const Shards& run : partials_of({first, count, 8})) {
      result.push_back(run.count);
    }
    return result;
  };
  using Counts = std::vector<std::int64_t>;
  CHECK(counts(0, 8) == Counts{8});
  CHECK(counts(4, 2) == Counts{2});
  CHECK(counts(1, 3) == Counts{1, 2});
  CHECK(counts(2, 5) == Counts{2, 2, 1});
  CHECK(counts(3, 0).empty());
}
