// SPDX-License-Identifier: Apache-2.0
// The rows of an expert pass: every (token, choice) pair, sorted by expert and
// within an expert by token.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::model {

struct Dispatch {
  at::Tensor token;     // [M] int64, M = N K
  at::Tensor choice;    // [M] int64, n K + k of the pair
  at::Tensor position;  // [N, K] int64, row of the pair
  at::Tensor ends;  // [E] int32 on the device, ends of rows; none on the CPU
  std::vector<std::int64_t> starts;  // [E + 1], rows of each expert
  std::int64_t top_k = 0;
  bool decodes = false;  // the tokens are decoded

  std::int64_t count(std::int64_t e) const { return starts[e + 1] - starts[e]; }
};

// selected: [N, K] int64 in [0, experts).
Dispatch dispatch(const at::Tensor& selected, std::int64_t experts);

}  // namespace fettle::model
