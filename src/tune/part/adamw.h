// SPDX-License-Identifier: Apache-2.0
// AdamW in fp32 with decoupled weight decay. Each row counts its own updates,
// so that a row that joins late has its moments corrected from its own start.
// Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR
// 2019, algorithm 2, in the form of torch.optim.AdamW.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace fettle::tune {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

// Moments of values [.., n, H]: 8 bytes a value, and 8 bytes a row.
struct AdamWState {
  at::Tensor first;   // like the values
  at::Tensor second;  // like the values
  // Updates a row has had, [n] integers on the CPU, or [1] where all rows have
  // had the same.
  at::Tensor age;

  static AdamWState zeros_like(const at::Tensor& values);
};

// One update of `values` [.., n, H] fp32 by `gradient` of the same shape, both
// on one device; all in place. Where the moments are of the meta device,
// another rank makes the update, and the rows only get older.
void adamw_step(
    const AdamWOptions& options,
    double learning_rate,
    const at::Tensor& gradient,
    at::Tensor& values,
    AdamWState& state);

}  // namespace fettle::tune
