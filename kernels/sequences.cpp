// SPDX-License-Identifier: Apache-2.0
#include "kernels/sequences.h"

#include <algorithm>

#include "core/error.h"

namespace fettle::kernels {

void check_starts(
    const std::vector<std::int64_t>& starts, std::int64_t tokens) {
  FETTLE_ASSERT(!starts.empty() && starts.front() == 0);
  FETTLE_ASSERT(starts.back() == tokens && std::ranges::is_sorted(starts));
}

at::Tensor starts_on(
    at::Device device, const std::vector<std::int64_t>& starts) {
  const at::Tensor here = at::from_blob(
      const_cast<std::int64_t*>(starts.data()),
      {static_cast<std::int64_t>(starts.size())},
      at::TensorOptions().dtype(at::kLong));
  return device.is_cpu() ? here : here.to(device);
}

}  // namespace fettle::kernels
