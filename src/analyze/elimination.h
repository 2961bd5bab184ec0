// SPDX-License-Identifier: Apache-2.0
// Backward elimination of an expert's neurons: again and again the neuron goes
// whose removal costs least once the output weights of those that stay are
// fitted anew. The expert maps activations a [I] to V^T a, V [I, H]. With M the
// second moment of a, G that of the output's gradient, and V from W at first,
// what a removal costs is what it adds to
//   min over V of 1/2 tr((V - W)^T M (V - W) G),  rows of removed neurons 0,
// the expected rise of the loss in the Fisher metric. Source: the optimal brain
// surgeon (Hassibi and Stork, 1993), whose step for a row of V is exact here:
// with j gone, V -= M^-1[:, j] V[j] / M^-1[j, j]; the cost is
// 1/2 V[j] G V[j]^T / M^-1[j, j].
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::analyze {

struct Elimination {
  std::vector<std::int64_t> order;  // [I], the first removed first
  std::vector<double> costs;        // [I], in that order, at least 0
};

// inverse: M^-1; gram: W G W^T; both [I, I] fp64 on the CPU, symmetric, the
// first positive definite. O(I^3) in matrix products.
Elimination eliminate(const at::Tensor& inverse, const at::Tensor& gram);

// (moment + damping)^-1 [I, I] fp64. Damping (> 0) grows tenfold until rounding
// no longer makes the matrix indefinite. `moment` must be finite.
at::Tensor damped_inverse(const at::Tensor& moment, double damping);

// [I] fp64: each neuron's cost, raised so that it grows strictly along the
// order, also in fp32: to keep the best of a ranking is then to stop early.
at::Tensor elimination_scores(const Elimination& elimination);

}  // namespace fettle::analyze
