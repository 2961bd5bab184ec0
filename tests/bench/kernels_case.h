// SPDX-License-Identifier: Apache-2.0
// An op that is measured, and where.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace fettle::bench {

using at::Tensor;

struct Case {
  std::string name;
  std::string shape;
  double bytes;
  std::function<void()> op;
  std::function<void()> aten;
  double weights = 0;  // of a packed matrix
};

// Where ops run, on values of what type, and how many tokens.
struct Bench {
  at::TensorOptions type = at::dtype(at::kFloat);
  std::int64_t tokens = 1024;

  at::TensorOptions wide() const { return type.dtype(at::kFloat); }
  at::TensorOptions index() const { return type.dtype(at::kLong); }
};

// The ops of recurrent token mixers.
void add_mixers(std::vector<Case>& cases, const Bench& bench);

}  // namespace fettle::bench
