// SPDX-License-Identifier: Apache-2.0
// What the gated delta rule and Mamba-2 have in common, as an op of its own
// that both are made of: a scan over packed sequences with a state [Dk, Dv] a
// head. Token by token
//   S = e^g S;  u = w v, or by the delta rule w (v - Sᵀ k);  S = S + k uᵀ;
//   o = Sᵀ q + D v.
// On the CPU tile by tile, on a device as ATen's batched products, or token by
// token where a few follow a state.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::kernels {

// All on one device, float32. Head h reads key head h / (heads / key heads).
// Rows may be strided, but for the last dimension.
struct ScanInputs {
  at::Tensor q, k;   // [N, key heads, Dk]
  at::Tensor v;      // [N, heads, Dv]
  at::Tensor g;      // [N, heads], at most 0
  at::Tensor write;  // [N, heads], w
  at::Tensor skip;   // [heads], D, or undefined
};

struct ScanOptions {
  bool delta = false;  // whether by the delta rule
  // Its queries and keys become x / √(|x|² + eps), queries then times scale.
  double eps = 0, scale = 1;
  const std::vector<std::int64_t>& starts;
  const at::Tensor& state;  // [B, heads, Dk, Dv] or undefined; overwritten
};

// Throws InternalError where inputs do not fit each other, or the options.
at::Tensor scan(const ScanInputs& inputs, const ScanOptions& options);

struct ScanGradients {
  at::Tensor dq, dk, dv, dg, dwrite, dskip;
};

// d_out may be strided like v. Without a state.
ScanGradients scan_backward(
    const at::Tensor& d_out,
    const ScanInputs& inputs,
    const ScanOptions& options);

}  // namespace fettle::kernels
