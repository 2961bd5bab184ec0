// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "trim/expert_groups.h"

namespace fettle::trim {

std::vector<ExpertGroup> group_by_router(
    const at::Tensor& gram, const std::vector<std::int64_t>& dominant) {
  const at::Tensor norms =
      gram.diagonal().clamp_min(1e-300).to(at::kDouble).sqrt();
  const at::Tensor similarity =
      (gram.to(at::kDouble) / at::outer(norms, norms)).contiguous();
  const std::int64_t experts = gram.size(0);
  const double* likeness = similarity.const_data_ptr<double>();
  std::vector<ExpertGroup> groups;
  for (const std::int64_t expert : dominant) groups.push_back({expert});
  for (std::int64_t e = 0; e < experts; ++e) {
    if (std::ranges::binary_search(dominant, e)) continue;
    std::size_t best = 0;
    for (std::size_t g = 1; g < dominant.size(); ++g) {
      if (likeness[e * experts + dominant[g]] >
          likeness[e * experts + dominant[best]]) {
        best = g;
      }
    }
    groups[best].push_back(e);
  }
  return groups;
}

}  // namespace fettle::trim
