// SPDX-License-Identifier: Apache-2.0
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
  const at::Tensor placed = draws.to(input.hidden.device());
  return nll_with_gradient(
      model, input, 1.0, [&](const at::Tensor& logits, const at::Tensor& rows) {
        return drawn_targets(logits, placed.index_select(0, rows));
      });
}

}  // namespace fettle::sweep
