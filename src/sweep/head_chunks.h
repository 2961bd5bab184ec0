// SPDX-License-Identifier: Apache-2.0
// The head over some rows at a time, forward and backward.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <span>

#include "model/causal_lm.h"
#include "sweep/head.h"
#include "sweep/observer.h"

namespace fettle::sweep {

// Calls `chunk(rows)` with the scored positions, head_rows() at a time.
void for_each_chunk(
    const model::CausalLm& model,
    const at::Tensor& targets,
    const std::function<void(const at::Tensor& rows)>& chunk);

at::Tensor chunk_logits(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& rows);

// Some rows of the final hidden states [N, H], for logits and their gradients.
class HeadChunk {
 public:
  HeadChunk(
      const model::CausalLm& model,
      const at::Tensor& hidden,
      const at::Tensor& rows);
  at::Tensor logits();  // [n, V], of the type of the hidden rows
  // Gradient of the hidden rows [n, H], given that of the logits, after they
  // were asked for; shows the weights' to observers that want it.
  at::Tensor backward(
      const at::Tensor& d_logits, std::span<Observer* const> observers) const;

 private:
  // From the gradient of logits to that of the products with the vocabulary.
  at::Tensor through_ends(const at::Tensor& d_logits) const;

  const model::CausalLm& model_;
  std::shared_ptr<const at::Tensor> lm_head_;
  at::Tensor hidden_;  // [n, H]
  at::Tensor normed_;  // [n, H]
  at::Tensor rstd_;    // [n]
  at::Tensor tanh_;    // [n, V] of soft-capped logits, else undefined
};

// The targets [n] of some rows, given their logits.
using ChunkTargets =
    std::function<at::Tensor(const at::Tensor& logits, const at::Tensor& rows)>;

// head_nll_with_gradient(), whose targets `targets` names.
HeadResult nll_with_gradient(
    const model::CausalLm& model,
    const HeadInput& input,
    double scale,
    const ChunkTargets& targets);

}  // namespace fettle::sweep
