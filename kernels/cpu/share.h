// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fettle::kernels::cpu {

// Which of equal parts of some work is meant, where threads are at hand
// already.
struct Share {
  std::int64_t part, parts;
};

}  // namespace fettle::kernels::cpu
