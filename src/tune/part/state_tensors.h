// SPDX-License-Identifier: Apache-2.0
// Takes tensors out of a saved set by name, checking that they are what is
// expected, so that a state or adapter of another model fails by name.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "artifact/tensor_file.h"

namespace fettle::tune {

// "PART.layers.LAYER.WHAT"
std::string layer_key(
    std::string_view part, std::int64_t layer, std::string_view what);

struct ExpectedTensor {
  at::ScalarType type = at::kFloat;
  std::vector<std::int64_t> shape;  // -1: any size
};

// `from`[name], whose storage it shares. Throws UserError when it is missing or
// of another type or shape.
at::Tensor take_tensor(
    const artifact::TensorMap& from,
    const std::string& name,
    const ExpectedTensor& expected);

// An ascending index [n] stored as int32, as int64. Throws UserError when an
// entry is out of order or not below `limit`.
at::Tensor take_index(
    const artifact::TensorMap& from,
    const std::string& name,
    std::int64_t limit);

}  // namespace fettle::tune
