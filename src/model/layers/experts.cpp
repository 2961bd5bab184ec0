// SPDX-License-Identifier: Apache-2.0
#include "model/layers/experts.h"

#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <memory>

#include "core/error.h"
#include "kernels/expert_rows.h"
#include "kernels/swiglu.h"
#include "model/layers/dense_mixture.h"
#include "model/layers/expert_dispatch.h"
#include "model/layers/expert_runs.h"

namespace fettle::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of the experts of a run.
struct RunWeights {
  at::Tensor gate_up;  // [experts, P I, H]
  at::Tensor down;     // [experts, I, H]
};

// What forward leaves for backward beside the saved tensors.
struct Kept : torch::CustomClassHolder {
  Dispatch dispatch;
  std::vector<std::int64_t> offsets;
  std::vector<ExpertRun> runs;
  std::vector<at::Tensor> gate_up;  // per run [n, P I]
  std::vector<at::Tensor> h;        // per run [n, I]
  LayerTap* tap = nullptr;
  kernels::Activation activation = kernels::Activation::kSilu;
  std::function<Mlp(std::int64_t e)> make;  // of experts that are apart
  std::int64_t layer = 0;
  bool differentiated = false;  // whether backward will need gate_up and h

  std::int64_t width(std::int64_t e) const {
    return offsets[e + 1] - offsets[e];
  }
  // Of a neuron: P.
  std::int64_t inputs() const { return kernels::inputs_of(activation); }
  // Rows of the bank's gate_up or its bias.
  at::Tensor gate_up_of(const at::Tensor& bank, std::int64_t e) const {
    return bank.narrow(0, inputs() * offsets[e], inputs() * width(e));
  }
  at::Tensor down_of(const at::Tensor& bank, std::int64_t e) const {
    return bank.narrow(0, offsets[e], width(e));
  }
  // [M, H], or nothing where the products of the only run are all of it.
  at::Tensor rows_like(const at::Tensor& x) const {
    if (runs.size() == 1 && width(runs[0].first) > 0) return {};
    return at::empty({dispatch.token.size(0), x.size(1)}, x.options());
  }
  // Of all experts of a run.
  RunWeights weights_of(
      const ExpertRun& run,
      const at::Tensor& gate_ups,
      const at::Tensor& downs) const {
    if (make) {
      FETTLE_ASSERT(run.experts() == 1);
      const Mlp expert = make(run.first);
      return {expert.gate_up.unsqueeze(0), expert.down.unsqueeze(0)};
    }
    const auto part = [&](const at::Tensor& bank, std::int64_t rows) {
      const std::int64_t own = rows * width(run.first);
      return bank.narrow(0, rows * offsets[run.first], run.experts() * own)
          .view({run.experts(), own, bank.size(1)});
    };
    return {part(gate_ups, inputs()), part(downs, 1)};
  }
};

void forward_run(
    Kept& kept,
    std::size_t i,
    const at::Tensor& x,
    const at::Tensor& weights,
    const variable_list& bank,
    at::Tensor& ys) {
  const ExpertRun& run = kept.runs[i];
  const at::Tensor tokens = rows_of(run, kept.dispatch.token);
  if (kept.width(run.first) == 0) {
    rows_of(run, ys).zero_();
  } else {
    const RunWeights own = kept.weights_of(run, bank[0], bank[1]);
    at::Tensor xs = kernels::gather_rows(x, tokens);
    at::Tensor gate_up =
        run_products(run, kept.dispatch, xs, own.gate_up.transpose(1, 2));
    if (bank[3].defined()) {
      for_each_expert_of(
          run, kept.dispatch, [&](std::int64_t e, const auto& rows) {
            rows(gate_up).add_(kept.gate_up_of(bank[3], e));
          });
    }
    const at::Tensor h = kernels::swiglu(gate_up, kept.activation);
    const bool tapped = kept.tap != nullptr && kept.tap->wants_experts();
    if (kept.differentiated) kept.gate_up[i] = gate_up;
    if (!tapped) xs.reset(), gate_up.reset();
    run_products_into(ys, run, kept.dispatch, h, own.down);
    if (tapped) {
      const at::Tensor y = rows_of(run, ys);
      const at::Tensor mix = weights.view({-1}).index_select(
          0, rows_of(run, kept.dispatch.choice));
      for_each_expert_of(
          run, kept.dispatch, [&](std::int64_t e, const auto& rows) {
            kept.tap->on_expert(
                kept.layer,
                {e,
                 rows(tokens),
                 rows(xs),
                 rows(gate_up),
                 rows(h),
                 rows(y),
                 rows(mix)});
          });
    }
    if (kept.differentiated) kept.h[i] = h;
  }
  if (bank[2].defined()) {
    for_each_expert_of(
        run, kept.dispatch, [&](std::int64_t e, const auto& rows) {
          rows(rows_of(run, ys)).add_(bank[2][e]);
        });
  }
}

struct Gradients {
  at::Tensor d_rows;     // [M, H], of the gathered inputs
  at::Tensor d_weights;  // [N K], of the mixing weights
  at::Tensor d_gate_up;  // of the bank, or undefined
  at::Tensor d_down;
  at::Tensor d_constant;
  at::Tensor d_bias;  // of gate and up
};

// What is known of a run once the gradient has come to its neurons, of its
// rows.
struct RunGradients {
  at::Tensor mix;  // [n] mixing weights
  at::Tensor dy;   // [n, H] of the weighted output; no longer needed
  at::Tensor dh;   // [n, I]
  at::Tensor dgu;  // [n, P I]
};

// Gradients of the weights, and what a tap sees of each expert.
void backward_weights(
    const Kept& kept,
    std::size_t i,
    const at::Tensor& x,
    const RunGradients& run_gradients,
    Gradients& out) {
  const ExpertRun& run = kept.runs[i];
  const auto& [mix, dy, dh, dgu] = run_gradients;
  const bool tapped = kept.tap != nullptr && kept.tap->wants_expert_gradients();
  if (out.d_bias.defined()) {
    for_each_expert_of(
        run, kept.dispatch, [&](std::int64_t e, const auto& rows) {
          kept.gate_up_of(out.d_bias, e)
              .copy_(rows(dgu).sum(0, false, at::kFloat));
        });
  }
  if (!tapped && !out.d_gate_up.defined() && !out.d_down.defined()) return;
  const at::Tensor weighted = dy.mul_(mix.unsqueeze(1));
  const at::Tensor xs =
      kernels::gather_rows(x, rows_of(run, kept.dispatch.token));
  if (out.d_gate_up.defined() || out.d_down.defined()) {
    for_each_expert_of(
        run, kept.dispatch, [&](std::int64_t e, const auto& rows) {
          if (out.d_gate_up.defined()) {
            at::Tensor d_gate_up = kept.gate_up_of(out.d_gate_up, e);
            at::mm_out(d_gate_up, rows(dgu).t(), rows(xs));
          }
          if (out.d_down.defined()) {
            at::Tensor d_down = kept.down_of(out.d_down, e);
            at::mm_out(d_down, rows(kept.h[i]).t(), rows(weighted));
          }
        });
  }
  if (tapped) {
    kept.tap->on_run_gradient(
        kept.layer,
        {run, kept.dispatch, xs, kept.h[i], dh, dgu, weighted, mix});
  }
}

// Multiplies dL/dh of the weighted output, dh [n, I], by the mixing weights [n]
// that it lacks, and returns the weights' own gradient [n]: the expert's output
// is not needed again.
at::Tensor weigh_(at::Tensor& dh, const at::Tensor& h, const at::Tensor& mix) {
  if (dh.is_cpu()) {
    const at::Tensor d_weights = (dh * h).sum(1, false, at::kFloat);
    dh.mul_(mix.unsqueeze(1));
    return d_weights;
  }
  // In one pass, each row being the choice of a token of its own.
  const at::Tensor row =
      at::arange(dh.size(0), mix.options().dtype(at::kLong)).unsqueeze(1);
  auto found =
      kernels::combine_backward(dh, h, row, mix.to(at::kFloat).unsqueeze(1));
  dh = std::move(found.d_rows);
  return found.d_weights.squeeze(1);
}

void backward_run(
    const Kept& kept,
    std::size_t i,
    const at::Tensor& dy,
    const variable_list& saved,
    Gradients& out) {
  const ExpertRun& run = kept.runs[i];
  const at::Tensor choice = rows_of(run, kept.dispatch.choice);
  const at::Tensor mix =
      saved[1].view({-1}).index_select(0, choice).to(dy.scalar_type());
  const at::Tensor dys =
      kernels::gather_rows(dy, rows_of(run, kept.dispatch.token));
  at::Tensor d_mix = at::zeros({run.rows}, saved[1].options());
  if (saved[4].defined()) {
    for_each_expert_of(
        run, kept.dispatch, [&](std::int64_t e, const auto& rows) {
          rows(d_mix).add_(at::mv(rows(dys), saved[4][e]));
          if (!out.d_constant.defined()) return;
          out.d_constant[e].copy_(at::mv(rows(dys).t(), rows(mix)));
        });
  }
  if (kept.width(run.first) == 0) {
    rows_of(run, out.d_rows).zero_();
  } else {
    // dL/dh = w (dy downᵀ), and dL/dw = ⟨dy downᵀ, h⟩.
    const RunWeights own = kept.weights_of(run, saved[2], saved[3]);
    at::Tensor dh =
        run_products(run, kept.dispatch, dys, own.down.transpose(1, 2));
    d_mix.add_(weigh_(dh, kept.h[i], mix));
    const at::Tensor dgu =
        kernels::swiglu_backward(dh, kept.gate_up[i], kept.activation);
    run_products_into(out.d_rows, run, kept.dispatch, dgu, own.gate_up);
    backward_weights(kept, i, saved[0], {mix, dys, dh, dgu}, out);
  }
  out.d_weights.index_copy_(0, choice, d_mix);
}

struct ExpertsFunction : torch::autograd::Function<ExpertsFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& x,
      const at::Tensor& weights,
      const at::Tensor& gate_up,
      const at::Tensor& down,
      const std::optional<at::Tensor>& constant,
      const std::optional<at::Tensor>& bias,
      const std::optional<at::Tensor>& others,
      const c10::intrusive_ptr<Kept>& kept) {
    const variable_list bank{
        gate_up,
        down,
        constant.value_or(at::Tensor()),
        bias.value_or(at::Tensor())};
    kept->gate_up.resize(kept->runs.size());
    kept->h.resize(kept->runs.size());
    at::Tensor ys = kept->rows_like(x);
    for_each_run(kept->runs, x.is_cpu(), [&](std::size_t i) {
      forward_run(*kept, i, x, weights, bank, ys);
    });
    ctx->save_for_backward({x, weights, gate_up, down, bank[2], bank[3]});
    ctx->saved_data["others"] = others.has_value();
    ctx->saved_data["kept"] = c10::IValue::make_capsule(kept);
    return kernels::combine(ys, kept->dispatch.position, weights);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto holder = ctx->saved_data["kept"].toCapsule();
    const Kept* kept = static_cast<const Kept*>(holder.get());
    const at::Tensor dy = grads[0].contiguous();
    Gradients out;
    out.d_rows = kept->rows_like(dy);
    out.d_weights = at::zeros({saved[1].numel()}, saved[1].options());
    // Written expert by expert; those that no token chose are filled here.
    if (ctx->needs_input_grad(2)) out.d_gate_up = at::empty_like(saved[2]);
    if (ctx->needs_input_grad(3)) out.d_down = at::empty_like(saved[3]);
    for (std::int64_t e = 0; e + 1 < std::ssize(kept->offsets); ++e) {
      if (kept->dispatch.count(e) > 0) continue;
      if (out.d_gate_up.defined()) kept->gate_up_of(out.d_gate_up, e).zero_();
      if (out.d_down.defined()) kept->down_of(out.d_down, e).zero_();
    }
    if (saved[4].defined() && ctx->needs_input_grad(4)) {
      out.d_constant = at::zeros_like(saved[4]);
    }
    if (saved[5].defined() && ctx->needs_input_grad(5)) {
      out.d_bias = at::zeros_like(saved[5]);
    }
    if (kept->tap != nullptr && kept->tap->wants_expert_gradients()) {
      kept->tap->on_output_gradient(kept->layer, dy);
    }
    for_each_run(kept->runs, dy.is_cpu(), [&](std::size_t i) {
      backward_run(*kept, i, dy, saved, out);
    });
    at::Tensor d_others;
    if (ctx->saved_data["others"].toBool()) {
      d_others = output_products(
          {kept->offsets,
           saved[2],
           saved[3],
           saved[5],
           saved[4],
           kept->activation,
           kept->make},
          saved[0],
          dy);
    }
    const at::Tensor dx =
        kernels::gather_rows_backward(out.d_rows, kept->dispatch.position);
    return {
        dx,
        out.d_weights.view_as(saved[1]),
        out.d_gate_up,
        out.d_down,
        out.d_constant,
        out.d_bias,
        d_others,
        at::Tensor()};
  }
};

}  // namespace

at::Tensor experts_forward(
    const ExpertPass& pass, const at::Tensor& x, const Mixture& mixture) {
  const at::Tensor& weights = mixture.weights;
  auto kept = c10::make_intrusive<Kept>();
  kept->dispatch = dispatch(mixture.selected, pass.bank.size());
  kept->dispatch.decodes = pass.decodes;
  kept->offsets = pass.bank.offsets;
  kept->runs = expert_runs(kept->dispatch, kept->offsets, !x.is_cpu());
  kept->tap = pass.tap;
  kept->activation = pass.bank.activation;
  kept->make = pass.bank.make;
  kept->layer = pass.layer;
  // Nothing where experts are apart.
  const bool apart = pass.bank.is_apart();
  const at::Tensor none = apart ? at::empty({0}, x.options()) : at::Tensor();
  const at::Tensor& gate_up = apart ? none : pass.bank.gate_up;
  const at::Tensor& down = apart ? none : pass.bank.down;
  kept->differentiated = at::GradMode::is_enabled() &&
                         (x.requires_grad() || weights.requires_grad() ||
                          gate_up.requires_grad() || down.requires_grad());
  const auto given = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional(tensor) : std::nullopt;
  };
  return ExpertsFunction::apply(
      x,
      weights,
      gate_up,
      down,
      given(pass.bank.constant),
      given(pass.bank.gate_up_bias),
      given(mixture.others),
      kept);
}

}  // namespace fettle::model
