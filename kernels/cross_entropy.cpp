// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_entropy.h"

#include <algorithm>

#include "kernels/dispatch.h"

namespace fettle::kernels {
namespace {

bool in_range(const at::Tensor& targets, std::int64_t vocab) {
  if (!targets.is_cpu()) return true;  // looking would wait for the device
  const auto* first = targets.data_ptr<std::int64_t>();
  return std::all_of(first, first + targets.numel(), [&](auto t) {
    return t == kIgnored || (t >= 0 && t < vocab);
  });
}

at::Tensor run(
    const at::Tensor& logits,
    const at::Tensor& targets,
    bool gradient,
    double scale) {
  FETTLE_ASSERT(logits.dim() == 2 && logits.is_contiguous());
  FETTLE_ASSERT(matches_as(targets, {logits.size(0)}, logits, at::kLong));
  FETTLE_ASSERT(in_range(targets, logits.size(1)));
  at::Tensor nll =
      at::empty({logits.size(0)}, logits.options().dtype(at::kFloat));
  if (nll.numel() == 0) return nll;
  const CrossEntropyArgs args{
      .dtype = dtype_of(logits),
      .rows = logits.size(0),
      .vocab = logits.size(1),
      .logits = logits.data_ptr(),
      .targets = targets.data_ptr<std::int64_t>(),
      .nll = nll.data_ptr<float>(),
      .gradient = gradient,
      .scale = static_cast<float>(scale)};
  dispatch(
      logits.device(),
      {"cross_entropy", cpu::cross_entropy, &Launchers::cross_entropy},
      args);
  return nll;
}

}  // namespace

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets) {
  return run(logits, targets, false, 0.0);
}

at::Tensor cross_entropy_with_gradient_(
    at::Tensor& logits, const at::Tensor& targets, double scale) {
  return run(logits, targets, true, scale);
}

}  // namespace fettle::kernels
