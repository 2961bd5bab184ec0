// SPDX-License-Identifier: Apache-2.0
// The arithmetic of the ridge repair: what an expert's down projection becomes
// so that its kept neurons give back as much of its output as they can.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::trim {

// Sums over the tokens of one expert of width I: h its activations entering
// down_proj, p the weight that the router mixes its output with.
struct Moments {
  at::Tensor second;  // [I, I] sum of p^2 h h^T
  at::Tensor first;   // [I] sum of p^2 h
  double weight = 0;  // sum of p^2
};

struct RefitOptions {
  // How strongly the weights are held to what they were: a sum of squared
  // activations, as on the diagonal of Moments::second.
  double lambda = 0;
  // Fit a constant output too.
  bool constant = false;
};

struct Refit {
  at::Tensor down;      // [H, S] fp64, S the kept neurons
  at::Tensor constant;  // [H] fp64, or undefined
  // Sums over tokens of the squared error of the weighted output: with the
  // weights as they were, and with these.
  double error_before = 0;
  double error_after = 0;
};

// Minimises sum_t p^2 |W h - W' h_S - c|^2 + lambda |W' - W_S|^2 over W' (and c
// where asked for, else c = 0): with C the second moments (about the mean where
// there is a constant), P what is cut and W = `down` [H, I],
//   W' = W_S + W_P C_PS (C_SS + lambda I)^-1.
// In fp64 by Cholesky. Where C_SS + lambda I is not positive definite by
// rounding, lambda grows tenfold until it is. `kept` ascends.
// Source: the closed form of ridge regression about W_S; for pruning, Frantar &
// Alistarh, "Optimal Brain Compression", NeurIPS 2022, with h as inputs.
Refit refit_down(
    const at::Tensor& down,
    const Moments& moments,
    const std::vector<std::int64_t>& kept,
    const RefitOptions& options);

// (a + lambda I)^-1 b in fp64, a [S, S] finite and symmetric without negative
// eigenvalues but by rounding, of any type, b [S, H] fp64. Raises lambda
// tenfold where that is needed; zeros where a is zero.
at::Tensor solve_ridge(
    const at::Tensor& a, const at::Tensor& b, double& lambda);

}  // namespace fettle::trim
