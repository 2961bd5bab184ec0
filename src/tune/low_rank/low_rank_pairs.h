// SPDX-License-Identifier: Apache-2.0
// Low-rank pairs of one target (low_rank_target.h): each matrix W [m, c]
// becomes W + s L R with L [m, r] and R [r, c]. For a matrix in its stored
// orientation L is LoRA's B and R its A; for a transposed one L is A^T and R is
// B^T. Source: Hu et al., "LoRA", ICLR 2022, section 4.1; the start is PEFT's.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/layers/layer_tap.h"
#include "tune/low_rank/low_rank_target.h"

namespace fettle::tune {

struct LowRankPairs {
  LowRankTarget target;
  at::Tensor left;   // [rows, r] fp32
  at::Tensor right;  // [matrices r, columns] fp32

  // A uniform in +-1/sqrt(in), which is Kaiming's with a = sqrt(5); B zero. The
  // same bits for a seed on every platform. On the CPU.
  static LowRankPairs start(
      LowRankTarget target, std::int64_t rank, std::uint64_t seed);

  std::int64_t rank() const { return left.size(1); }
  // How many values the pairs have, counting matrices that have rows.
  std::int64_t weights() const;
  at::Tensor left_of(std::int64_t e) const;
  at::Tensor right_of(std::int64_t e) const;
  // The factors of `count` matrices from `first` on, which must have equally
  // many rows: [count, m, r] and [count, r, c].
  at::Tensor lefts_of(std::int64_t first, std::int64_t count) const;
  at::Tensor rights_of(std::int64_t first, std::int64_t count) const;
  // Whether matrix e differs from its start, that is, whether its B isn't zero.
  bool changed(std::int64_t e) const;
};

// Adds `scale` L R to what the layer holds, in fp32, and rounds to its type.
void add_pairs(
    const LowRankPairs& pairs, float scale, model::LayerWeights& into);

// `base`, fp32 in the stored shape of `id`, which the target covers, with its
// pair added: the numbers that add_pairs gives on the CPU, and on a card before
// rounding but for some millionths.
at::Tensor with_pair(
    const LowRankPairs& pairs,
    float scale,
    const model::WeightId& id,
    const at::Tensor& base);

// Gradients like left and right of a pair, fp32.
struct PairGradient {
  at::Tensor left, right;
};

// Adds a pair's gradient, given W's gradient D [m, c]: dL = s D R^T, dR = s L^T
// D.
void add_pair_gradient(
    const LowRankPairs& pairs,
    const at::Tensor& of_weight,
    float scale,
    PairGradient into);

// Adds matrix e's gradient, given D = U^T V by factors U [n, m] and V [n, c]:
// dL = s U^T (V R^T), dR = s (U L)^T V, so that D is never formed.
struct GradientFactors {
  const at::Tensor& u;
  const at::Tensor& v;
};
void add_pair_gradient(
    const LowRankPairs& pairs,
    std::int64_t e,
    const GradientFactors& of_weight,
    float scale,
    PairGradient into);

// Adds the gradients of a run of experts' matrices; U and V have their rows.
void add_run_gradient(
    const LowRankPairs& pairs,
    const model::RunGradView& view,
    const GradientFactors& of_weight,
    float scale,
    PairGradient into);

}  // namespace fettle::tune
