// SPDX-License-Identifier: Apache-2.0
// Negative log-likelihood of each row's target, and its gradient in place. Rows
// are independent: a logit of −∞ counts as probability 0, a target of
// probability 0 gives +∞, and a NaN or a row of −∞ alone gives NaN.
//
// logits [N, V] are float32, bfloat16 or, on a GPU, float16, contiguous;
// arithmetic is float32. targets [N] are int64 in [0, V), or kIgnored. Shapes,
// dtypes or devices that do not fit and, on the CPU, other targets are
// InternalErrors; a GPU gives NaN for such a target.
#pragma once

#include <ATen/ATen.h>

namespace fettle::kernels {

inline constexpr std::int64_t kIgnored = -100;

// [N] float32, in nats: log Σ_v e^logits[n, v] − logits[n, targets[n]], and 0
// for an ignored row.
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets);

// Returns cross_entropy(), and overwrites logits with its gradient,
// scale · (softmax(logits) − onehot), 0 in ignored rows.
at::Tensor cross_entropy_with_gradient_(
    at::Tensor& logits, const at::Tensor& targets, double scale);

}  // namespace fettle::kernels
