// SPDX-License-Identifier: Apache-2.0
// Random numbers that are the same on every platform. The generator is counter
// based: draw i of a stream is a function of (seed, stream, i) alone, so
// streams never overlap and any position is reached at once.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011
// (Philox4x32-10).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace fettle {

// One block of the generator: four words from a counter and a key.
std::array<std::uint32_t, 4> philox4x32(
    std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

class Rng {
 public:
  // All there is to save: Rng(state) continues exactly where it was taken.
  struct State {
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
    std::uint64_t position = 0;  // 64-bit words drawn so far
  };

  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0);
  explicit Rng(const State& state);

  const State& state() const { return state_; }

  std::uint64_t next();                      // 64 random bits
  double uniform();                          // [0, 1), 53 bits
  std::uint64_t below(std::uint64_t limit);  // [0, limit), unbiased; limit > 0
  // Mean 0, deviation 1; by inverting the distribution function, so that each
  // normal takes one draw. Source: Wichura, algorithm AS 241 (PPND16), 1988.
  double normal();

  // Fisher and Yates: every order equally likely.
  template <typename T>
  void shuffle(std::span<T> values) {
    for (std::size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[below(i)]);
    }
  }

 private:
  void fill_block();  // the block that holds the word at state_.position

  State state_;
  std::array<std::uint64_t, 2> block_{};
};

}  // namespace fettle
