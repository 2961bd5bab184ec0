// SPDX-License-Identifier: Apache-2.0
// A team has a row: 2^shift neighbouring threads, lanes of one warp or a whole
// block, each of which holds V vectors of W values of it in registers, so that
// a row is read once.
#pragma once

#include <algorithm>

#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {

inline constexpr int kTeamThreads = 128;  // of a block, if that is enough

// Teams of more than a warp are those of kBlockV vectors a thread.
inline constexpr int kBlockV = 4;

template <int V>
__device__ float over_team(float v, int shift) {
  const int lanes = 1 << shift;
  if constexpr (V == kBlockV) {
    if (lanes > kSmallestWarp) return over_block<Sum>(v);
  }
  return over_lanes<Sum>(v, lanes);
}

template <int V>
struct Vectors {
  static constexpr int value = V;
  // So many that V vectors of each of 2^shift lanes are a row of `vectors`.
  static int shift(std::int64_t vectors) {
    int shift = 0;
    while (static_cast<std::int64_t>(V) << shift < vectors) ++shift;
    return shift;
  }
};

// Calls f(Vectors<V>) with the V that suits rows of so many vectors: few for
// short rows, whose loads then lie close together, and enough that a warp can
// hold a row. False where a row is too long for a block's registers.
template <class F>
bool with_vectors(std::int64_t vectors, const F& f) {
  if (vectors <= 2 * kSmallestWarp) {
    f(Vectors<2>{});
  } else if (
      vectors > kBlockV * kSmallestWarp && vectors <= 8 * kSmallestWarp) {
    f(Vectors<8>{});
  } else if (vectors <= kBlockV * kMostThreads) {
    f(Vectors<kBlockV>{});
  } else {
    return false;
  }
  return true;
}

}  // namespace fettle::kernels::gpu
