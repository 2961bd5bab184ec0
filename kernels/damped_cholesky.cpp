// SPDX-License-Identifier: Apache-2.0
#include "kernels/damped_cholesky.h"

#include <cmath>

#include "core/error.h"

namespace fettle::kernels {

at::Tensor damped_cholesky(const at::Tensor& a, double& damping) {
  FETTLE_ASSERT(a.dim() == 2 && a.size(0) == a.size(1));
  FETTLE_ASSERT(a.is_cpu() && damping > 0 && std::isfinite(damping));
  // What isn't finite has no factor, however large the damping.
  FETTLE_ASSERT(at::isfinite(a).all().item<bool>());
  for (;; damping *= 10) {
    // The shifted copy is gone before the caller solves with the factor.
    at::Tensor shifted = a.to(at::kDouble, false, /*copy=*/true);
    shifted.diagonal().add_(damping);
    const auto [factor, failed] = at::linalg_cholesky_ex(shifted);
    if (failed.item<int>() == 0) return factor;
  }
}

}  // namespace fettle::kernels
