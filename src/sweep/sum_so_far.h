// SPDX-License-Identifier: Apache-2.0
// For an observer whose sums go on over several sweeps: each sweep's own are
// what is added up over shards and ranks.
#pragma once

#include <ATen/ATen.h>

#include <utility>

#include "sweep/observer.h"

namespace fettle::sweep {

class SumSoFar {
 public:
  // In for_each_sum. The first call of a layer keeps back what there was.
  void show(at::Tensor& sum, const SumVisitor& visit) {
    if (!before_.defined()) {
      before_ = std::exchange(sum, at::zeros_like(sum));
    }
    visit(sum, ranks::Reduction::kSum);
  }
  // In end_layer.
  void end(at::Tensor& sum) {
    if (before_.defined()) sum.add_(std::exchange(before_, {}));
  }

 private:
  at::Tensor before_;
};

}  // namespace fettle::sweep
