// SPDX-License-Identifier: Apache-2.0
// Offsets of packed sequences, as ops over tokens take them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::kernels {

// Offsets that are not [B + 1], rising from 0 to `tokens`, are an
// InternalError.
void check_starts(const std::vector<std::int64_t>& starts, std::int64_t tokens);

// The offsets as a tensor of the device; on the CPU the vector's own memory.
at::Tensor starts_on(
    at::Device device, const std::vector<std::int64_t>& starts);

}  // namespace fettle::kernels
