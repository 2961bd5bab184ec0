// SPDX-License-Identifier: Apache-2.0
// Gradients of single neurons from what an expert shows in the backward pass.
// With D the gradient before the activation and n tokens, row k of gate_proj
// has the gradient D[:, k]^T x, row k of up_proj D[:, I + k]^T x (where there
// is no gate, D[:, k]^T x), and column k of down_proj h[:, k]^T dy: only the
// columns asked for are gathered, and no full weight gradient is formed.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_tap.h"

namespace fettle::tune {

// Adds the gradients of neurons `columns` [c] int64 (dimensions of this expert,
// on the views' device) to `into` [P + 1, c, H] fp32: gate, up, down rows, or
// up and down rows.
void add_neuron_gradient(
    const model::ExpertGradView& view,
    const at::Tensor& columns,
    at::Tensor into);

// Squared norm of the (P + 1) H gradient values of every neuron: [I] fp32.
at::Tensor neuron_gradient_norms(const model::ExpertGradView& view);

// ||(left^T right)[k, :]||^2 for every column k of `left` [n, c]; right [n, H].
// The product is formed, or with few tokens the Gram matrix of `right` instead,
// whichever takes fewer operations.
at::Tensor product_row_norms(const at::Tensor& left, const at::Tensor& right);

}  // namespace fettle::tune
