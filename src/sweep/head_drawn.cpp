// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_entropy.h"
#include "sweep/head.h"
#include "sweep/head_chunks.h"

namespace fettle::sweep {

at::Tensor drawn_targets(const at::Tensor& logits, const at::Tensor& draws) {
  const at::Tensor sums = at::softmax(logits, -1, at::kFloat).cumsum(-1);
  // The last sum is 1 but for rounding.
  const at::Tensor places =
      draws.to(sums.device()).unsqueeze(1) * sums.narrow(1, -1, 1);
  return at::searchsorted(sums, places, /*out_int32=*/false, /*right=*/true)
      .squeeze(1)
      .clamp_max(logits.size(1) - 1);
}

HeadResult head_drawn_with_gradient(
    const model::CausalLm& model,
    const HeadInput& input,
    const at::Tensor& draws) {
  const at::NoGradGuard no_grad;
  const at::Tensor& hidden = input.hidden;
  const at::Tensor placed = draws.to(hidden.device());
  at::Tensor nll =
      at::zeros({hidden.size(0)}, hidden.options().dtype(at::kFloat));
  at::Tensor d_hidden = at::zeros_like(hidden);
  for_each_chunk(input.targets, [&](const at::Tensor& rows) {
    HeadChunk chunk(model, hidden, rows);
    at::Tensor logits = chunk.logits();
    const at::Tensor drawn =
        drawn_targets(logits, placed.index_select(0, rows));
    nll.index_copy_(
        0, rows, kernels::cross_entropy_with_gradient_(logits, drawn, 1.0));
    d_hidden.index_copy_(0, rows, chunk.backward(logits, input.observers));
  });
  return {nll.to(at::kCPU), d_hidden};
}

}  // namespace fettle::sweep
