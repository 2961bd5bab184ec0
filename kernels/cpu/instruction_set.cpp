// SPDX-License-Identifier: Apache-2.0
#include "kernels/instruction_set.h"

#include <hwy/highway.h>

namespace fettle::kernels {

// Targets are bits, the better the lower.
std::string instruction_set() {
  const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(usable & -usable);
}

}  // namespace fettle::kernels
