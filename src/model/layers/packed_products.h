// SPDX-License-Identifier: Apache-2.0
// Products with matrices as the checkpoint packs them.
#pragma once

#include <ATen/ATen.h>

#include <span>
#include <vector>

#include "model/family/weight_table.h"
#include "model/layers/experts.h"
#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"
#include "model/weights/packed_layer.h"

namespace fettle::model {

// y [n, rows] = x [n, cols] Wᵀ; no gradient.
at::Tensor packed_linear(
    const StoredMatrix& matrix, const at::Tensor& x, Activations activations);

// The same with several matrices.
std::vector<at::Tensor> packed_linears(
    std::span<const StoredMatrix* const> matrices,
    const at::Tensor& x,
    Activations activations);

struct PackedMlpKind {
  kernels::Activation activation;
  Activations activations;
};

// mlp() of differentiable.h; no gradient.
at::Tensor packed_mlp(
    const PackedLayer& layer,
    const MlpRoles& roles,
    const at::Tensor& x,
    const PackedMlpKind& kind);

// experts_forward() of a layer whose experts are packed; no gradient, no tap.
at::Tensor packed_experts_forward(
    const LayerWeights& weights,
    const at::Tensor& x,
    const Mixture& mixture,
    Activations activations);

}  // namespace fettle::model
