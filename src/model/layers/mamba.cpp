// SPDX-License-Identifier: Apache-2.0
#include "model/layers/mamba.h"

#include "kernels/selective_scan.h"
#include "model/layers/convolution.h"
#include "model/layers/differentiable.h"
#include "model/layers/differentiable_mixers.h"
#include "model/layers/each_sequence.h"
#include "model/layers/projection.h"

namespace fettle::model {
namespace {

// The scan over convolved [N, channels] and steps [N, heads] → [N, heads, P].
at::Tensor scanned(
    const LayerContext& context,
    const MambaWeights& w,
    const at::Tensor& convolved,
    const at::Tensor& steps) {
  const MambaConfig& m = context.config.mamba;
  const std::int64_t states = m.groups * m.state_dim;
  const auto parts =
      convolved.split_with_sizes({m.inner_size(), states, states}, 1);
  const auto heads = [](const at::Tensor& part, std::int64_t dim) {
    return part.view({part.size(0), -1, dim});
  };
  const at::Tensor dt = at::softplus(steps.to(at::kFloat) + w.step_bias)
                            .clamp(m.least_step, m.most_step);
  const kernels::SelectiveScanInputs inputs{
      heads(parts[0], m.head_dim),
      dt,
      w.log_rate.exp().neg(),
      heads(parts[1], m.state_dim),
      heads(parts[2], m.state_dim),
      w.skip};
  if (context.states.empty()) {
    return model::selective_scan(
        inputs, {.starts = context.batch.tokens.starts, .state = {}});
  }
  return for_each_state(
      context, [&](LayerState& state, const SequenceRows& rows) {
        if (!state.recurrent.defined()) {
          state.recurrent = at::zeros(
              {1, m.heads, m.state_dim, m.head_dim},
              convolved.options().dtype(at::kFloat));
        }
        return kernels::selective_scan(
            {rows.of(inputs.x),
             rows.of(inputs.dt),
             inputs.a,
             rows.of(inputs.b),
             rows.of(inputs.c),
             inputs.d},
            {.starts = {0, rows.count}, .state = state.recurrent});
      });
}

// y · silu(gate), normalised over each group's values.
at::Tensor gated_norm(
    const LayerContext& context,
    const MambaWeights& w,
    const at::Tensor& y,
    const at::Tensor& gate) {
  const ModelConfig& config = context.config;
  const at::Tensor gated = y.to(at::kFloat) * at::silu(gate.to(at::kFloat));
  const at::Tensor groups =
      gated.view({gated.size(0), config.mamba.norm_groups, -1});
  const at::Tensor one = at::ones({groups.size(2)}, groups.options());
  const at::Tensor normed = rms_norm(groups, one, config.norm_eps);
  return w.norm * normed.view(gated.sizes()).to(y.scalar_type());
}

}  // namespace

at::Tensor mamba(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const MambaConfig& m = context.config.mamba;
  const MambaWeights& w = weights.mamba;
  const Projection project{context, weights};
  const auto parts =
      project(Role::kMambaIn, x, w.in, w.in_bias)
          .split_with_sizes({m.inner_size(), m.channels(), m.heads}, 1);
  const at::Tensor convolved =
      convolution(context, weights, parts[1], {.silu = true});
  const at::Tensor y = scanned(context, w, convolved, parts[2]);
  const at::Tensor mixed =
      gated_norm(context, w, y.view({x.size(0), -1}), parts[0]);
  return project(Role::kMambaOut, mixed, w.out, w.out_bias);
}

}  // namespace fettle::model
