// SPDX-License-Identifier: Apache-2.0
// Ranks as threads of one process, for tests.
#pragma once

#include <barrier>
#include <functional>
#include <thread>
#include <vector>

#include "ranks/group.h"

namespace fettle::ranks {

// What the threads share.
struct Meeting {
  explicit Meeting(std::int64_t size)
      : barrier(size), tensors(size), sent(size), texts(size) {}
  std::barrier<> barrier;
  std::vector<at::Tensor> tensors;
  std::vector<std::vector<std::int64_t>> sent;
  std::vector<std::string> texts;
};

class ThreadRank : public Group {
 public:
  ThreadRank(Meeting& meeting, std::int64_t rank)
      : meeting_(meeting), rank_(rank) {}

  std::int64_t rank() const override { return rank_; }
  std::int64_t size() const override {
    return static_cast<std::int64_t>(meeting_.tensors.size());
  }
  void all_to_all(
      const at::Tensor& out,
      const at::Tensor& in,
      const Splits& splits) override {
    meeting_.tensors[rank_] = in;
    meeting_.sent[rank_] = splits.sent;
    meeting_.barrier.arrive_and_wait();
    std::int64_t to = 0;
    for (std::int64_t r = 0; r < size(); ++r) {
      std::int64_t from = 0;
      for (std::int64_t d = 0; d < rank_; ++d) from += meeting_.sent[r][d];
      const std::int64_t count = meeting_.sent[r][rank_];
      if (count != splits.received[r]) throw std::runtime_error("splits");
      out.narrow(0, to, count)
          .copy_(meeting_.tensors[r].narrow(0, from, count));
      to += count;
    }
    meeting_.barrier.arrive_and_wait();
  }
  void broadcast(const at::Tensor& values, std::int64_t root) override {
    meeting_.tensors[rank_] = values;
    meeting_.barrier.arrive_and_wait();
    if (rank_ != root) values.copy_(meeting_.tensors[root]);
    meeting_.barrier.arrive_and_wait();
  }
  std::vector<std::string> gather(const std::string& text) override {
    meeting_.texts[rank_] = text;
    meeting_.barrier.arrive_and_wait();
    auto all = meeting_.texts;
    meeting_.barrier.arrive_and_wait();
    return all;
  }
  void barrier() override { meeting_.barrier.arrive_and_wait(); }

 private:
  Meeting& meeting_;
  std::int64_t rank_;
};

// Runs `work` as each of `size` ranks at once.
inline void as_ranks(
    std::int64_t size, const std::function<void(Group&)>& work) {
  Meeting meeting(size);
  std::vector<std::jthread> threads;
  for (std::int64_t r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      ThreadRank rank(meeting, r);
      work(rank);
    });
  }
}

}  // namespace fettle::ranks
