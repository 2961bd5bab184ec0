// SPDX-License-Identifier: Apache-2.0
// Where the scale and the zero of a column are: those of its group.
#pragma once

#include <algorithm>

#include "kernels/gpu/values.h"
#include "kernels/packed_args.h"

namespace fettle::kernels::gpu {

// Groups are divided by shifting where they can be.
struct Groups {
  std::int64_t size;
  int shift;  // or -1

  // Matrices have fewer than 2^31 columns, and 32 bits divide faster.
  __device__ std::uint32_t of(std::uint32_t col) const {
    return shift >= 0 ? col >> shift : col / static_cast<std::uint32_t>(size);
  }
};

// A group longer than a row is as long as one.
inline Groups groups_of(const PackedArgs& m) {
  const std::int64_t size =
      std::max<std::int64_t>(1, std::min(m.group, m.cols));
  int shift = 0;
  while ((std::int64_t{1} << shift) < size) ++shift;
  return {size, std::int64_t{1} << shift == size ? shift : -1};
}

__device__ inline float scale_at(const PackedArgs& m, std::int64_t i) {
  return to_float(Bf16{m.scales[i]});
}

// What is taken from the codes of a group. Trits are codes of two bits.
template <int kBits>
__device__ inline std::uint32_t zero_code_at(
    const PackedArgs& m, std::int64_t i) {
  if constexpr (kBits == 0) {
    return 1;
  } else {
    return m.zeros == nullptr ? 1u << (kBits - 1) : m.zeros[i];
  }
}

template <int kBits>
__device__ inline float zero_at(const PackedArgs& m, std::int64_t i) {
  return static_cast<float>(zero_code_at<kBits>(m, i));
}

}  // namespace fettle::kernels::gpu
