// SPDX-License-Identifier: Apache-2.0
// The kernels as autograd functions. Each saves only what its backward needs.
#pragma once

#include <ATen/ATen.h>

#include "kernels/args.h"
#include "kernels/attention.h"
#include "model/layers/rotary.h"

namespace fettle::model {

struct NormKind {
  double eps = 0.0;
  double offset = 0.0;  // added to the weight
};

// y = x / rms(x) * weight over the last dimension. x: [.., H], weight: [H].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// y = x / rms(x) * (offset + weight).
at::Tensor rms_norm(
    const at::Tensor& x, const at::Tensor& weight, const NormKind& kind);

struct RotaryPlace {
  RopePairing pairing = RopePairing::kHalf;
  std::int64_t start = 0;  // first dimension of a head that is turned
};

// Turns R dimensions of each head by its token's angles; the others pass
// through. x: [N, heads, D], D >= start + R, R = 2 * tables.cos.size(1).
at::Tensor apply_rotary(
    const at::Tensor& x, const RotaryTables& tables, const RotaryPlace& place);

// Causal attention of packed sequences on the CPU in float32; see
// kernels/attention.h for shapes. sinks [heads] or undefined: one more logit in
// each row's softmax, without a value.
at::Tensor causal_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const kernels::AttentionOptions& options,
    const at::Tensor& sinks = {});

// act(gate) * up, or as the activation says. gate_up: [M, P I], gate columns
// first, if there are any → [M, I].
at::Tensor gated(const at::Tensor& gate_up, kernels::Activation activation);

// y[p] = x[from[p]] for x [N, ..] and from [P] int64. back [N]: the row of y
// whose gradient is that of a row of x, -1 for none; gradients of other rows of
// y are left aside.
at::Tensor moved_rows(
    const at::Tensor& x, const at::Tensor& from, const at::Tensor& back);

}  // namespace fettle::model
