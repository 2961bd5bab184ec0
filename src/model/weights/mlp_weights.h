// SPDX-License-Identifier: Apache-2.0
// The tensors of a layer's MLPs, as LayerWeights holds them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <iterator>
#include <vector>

#include "kernels/args.h"

namespace fettle::model {

// An MLP's weights, neuron-major: row k of each matrix belongs to intermediate
// dimension k, so a neuron is P + 1 rows of H values, P being the inputs of its
// activation: gate and up, or up alone.
struct Mlp {
  at::Tensor gate_up;  // [P I, H], gate rows, if there are any, then up rows
  at::Tensor down;     // [I, H], down_proj transposed
  kernels::Activation activation = kernels::Activation::kSilu;
  bool defined() const { return gate_up.defined(); }
};

// All experts of a layer in one buffer each. With offsets o, expert e owns rows
// [o[e], o[e+1]) of `down`, and rows [P o[e], P o[e+1]) of `gate_up`: its gate
// rows, if neurons have any, then its up rows. Where they are apart, an
// expert's weights are made when they are needed, and those two are undefined.
struct ExpertBank {
  std::vector<std::int64_t> offsets;  // [E + 1]
  at::Tensor gate_up;                 // [P S, H], S = offsets.back()
  at::Tensor down;                    // [S, H]
  at::Tensor gate_up_bias;            // [P S], rows as gate_up's, or undefined
  at::Tensor constant;                // [E, H], or undefined
  kernels::Activation activation = kernels::Activation::kSilu;
  // Of expert e, anew at each call, on any thread; null: not apart.
  std::function<Mlp(std::int64_t e)> make = {};

  bool is_apart() const { return make != nullptr; }
  // 0 also of a layer without experts, which has no offsets.
  std::int64_t size() const {
    return offsets.empty() ? 0 : std::ssize(offsets) - 1;
  }
  std::int64_t width(std::int64_t e) const {
    return offsets[e + 1] - offsets[e];
  }
  // Rows of gate_up that a neuron has: P.
  std::int64_t inputs() const { return kernels::inputs_of(activation); }
  // Of expert e, [P I, H] and [P I].
  at::Tensor gate_up_of(std::int64_t e) const {
    return gate_up.narrow(0, inputs() * offsets[e], inputs() * width(e));
  }
  at::Tensor gate_up_bias_of(std::int64_t e) const {
    return gate_up_bias.narrow(0, inputs() * offsets[e], inputs() * width(e));
  }
  // Views, or made.
  Mlp expert(std::int64_t e) const {
    if (is_apart()) return make(e);
    return {gate_up_of(e), down.narrow(0, offsets[e], width(e)), activation};
  }
};

}  // namespace fettle::model
