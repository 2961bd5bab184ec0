// SPDX-License-Identifier: Apache-2.0
// Causal self-attention of sequences that lie end to end, for the CPU in
// float32; on a device, ATen's fused attention serves. Works through tiles of
// queries and keys with a running softmax (Dao et al., "FlashAttention", 2022),
// so that no row of scores is ever whole; tiles that are masked are never
// computed, which ATen's CPU code does, and key heads that several query heads
// share are never repeated. Tensors are contiguous; shapes, dtypes or devices
// that do not fit are InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::kernels {

struct AttentionOptions {
  // [B + 1] token offsets of the sequences, from 0 to N.
  std::vector<std::int64_t> starts;
  // A token sees itself and the window - 1 tokens before it; 0: all before.
  std::int64_t window = 0;
  // Of the products of queries and keys.
  double scale = 1.0;
};

struct Attention {
  at::Tensor out;  // [N, heads, Dv]
  at::Tensor lse;  // [N, heads], logarithm of the softmax's denominator
};

// softmax(scale · q kᵀ) v. q: [N, heads, D], k: [N, kv_heads, D], v: [N,
// kv_heads, Dv]; heads is a multiple of kv_heads, and query head h reads key
// head h / (heads / kv_heads).
Attention attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const AttentionOptions& options);

struct AttentionGradients {
  at::Tensor dq, dk, dv;
};

// The gradients of q, k and v from that of `forward.out`.
AttentionGradients attention_backward(
    const at::Tensor& d_out,
    const Attention& forward,
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const AttentionOptions& options);

}  // namespace fettle::kernels
