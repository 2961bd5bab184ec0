// SPDX-License-Identifier: Apache-2.0
// Sums in a fixed order on the way back, so that a run repeated or resumed on a
// card ends in the same bits: fused attention else adds up gradients as blocks
// happen to finish.
#pragma once

#include <ATen/Context.h>

namespace fettle::sweep {

// While it lives, libtorch's operators on a card are deterministic. Nothing
// else of libtorch may want it otherwise meanwhile.
class FixedOrder {
 public:
  explicit FixedOrder(at::Device device) : on_(!device.is_cpu()) {
    if (!on_) return;
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(true, /*warn_only=*/false);
    // Else every new tensor is filled with NaN.
    context.setDeterministicFillUninitializedMemory(false);
  }
  ~FixedOrder() {
    if (on_) at::globalContext().setDeterministicAlgorithms(false, false);
  }
  FixedOrder(const FixedOrder&) = delete;
  FixedOrder& operator=(const FixedOrder&) = delete;

 private:
  bool on_;
};

}  // namespace fettle::sweep
