// SPDX-License-Identifier: Apache-2.0
// A layer written out by its definition in fp64, for sequences of one token:
// such a token attends to itself alone, and attention is its own value.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "model/layers/token_batch.h"
#include "model/weights/model_reader.h"
#include "quant/hessians.h"

namespace fettle::quant::testing {

struct LayerReference {
  // What each matrix takes in, [N, C] by role and expert; an expert's of all
  // tokens, whether they chose it or not.
  std::map<std::pair<model::Role, std::int64_t>, at::Tensor> inputs;
  at::Tensor mixing;  // [N, E], 0 where a token did not choose the expert
  at::Tensor probs;   // [N, E]
  at::Tensor out;     // [N, H]

  // Σ w² x xᵀ of what enters a weight, in fp64, and how many tokens that are.
  Hessian moments(
      const model::WeightId& id, const HessianOptions& options) const;
};

// x: [N, H], what enters the layer.
LayerReference compute_layer(
    const model::ModelReader& reader, std::int64_t layer, const at::Tensor& x);

// The layers' references, one fed by the other, for tokens `ids`.
std::vector<LayerReference> compute_layers(
    const model::ModelReader& reader, const at::Tensor& ids);

// tr(A M Aᵀ) in fp64.
double squares_under(const at::Tensor& a, const at::Tensor& moments);

}  // namespace fettle::quant::testing
