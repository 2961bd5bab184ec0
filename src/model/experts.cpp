// SPDX-License-Identifier: Apache-2.0
#include "model/experts.h"

#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "kernels/expert_rows.h"
#include "kernels/swiglu.h"
#include "model/dense_mixture.h"
#include "model/dispatch.h"
#include "model/expert_loop.h"

namespace fettle::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What forward leaves for backward beside the saved tensors.
struct Plan : torch::CustomClassHolder {
  Dispatch dispatch;
  std::vector<std::int64_t> offsets;
  std::vector<at::Tensor> gate_up;  // per expert [n, 2I]
  std::vector<at::Tensor> h;        // per expert [n, I]
  MoeTap* tap = nullptr;
  std::int64_t layer = 0;
  bool differentiated = false;  // whether backward will need gate_up and h

  std::int64_t width(std::int64_t e) const {
    return offsets[e + 1] - offsets[e];
  }
  at::Tensor rows(const at::Tensor& x, std::int64_t e) const {
    return x.narrow(0, dispatch.starts[e], dispatch.count(e));
  }
  at::Tensor gate_up_of(const at::Tensor& bank, std::int64_t e) const {
    return bank.narrow(0, 2 * offsets[e], 2 * width(e));
  }
  at::Tensor down_of(const at::Tensor& bank, std::int64_t e) const {
    return bank.narrow(0, offsets[e], width(e));
  }
};

void forward_expert(
    Plan& plan,
    std::int64_t e,
    const at::Tensor& x,
    const at::Tensor& weights,
    const variable_list& bank,
    at::Tensor& ys) {
  const at::Tensor tokens = plan.rows(plan.dispatch.token, e);
  at::Tensor y = plan.rows(ys, e);
  if (plan.width(e) == 0) {
    y.zero_();
  } else {
    const at::Tensor xe = kernels::gather_rows(x, tokens);
    plan.gate_up[e] = at::mm(xe, plan.gate_up_of(bank[0], e).t());
    plan.h[e] = kernels::swiglu(plan.gate_up[e]);
    at::mm_out(y, plan.h[e], plan.down_of(bank[1], e));
    if (plan.tap != nullptr && plan.tap->wants_experts()) {
      const at::Tensor choice = plan.rows(plan.dispatch.choice, e);
      plan.tap->on_expert(
          plan.layer,
          {e,
           tokens,
           xe,
           plan.gate_up[e],
           plan.h[e],
           y,
           weights.view({-1}).index_select(0, choice)});
    }
  }
  if (bank[2].defined()) y.add_(bank[2][e]);
  if (!plan.differentiated) {
    plan.gate_up[e].reset();
    plan.h[e].reset();
  }
}

struct Gradients {
  at::Tensor d_rows;     // [M, H], of the gathered inputs
  at::Tensor d_weights;  // [N K], of the mixing weights
  at::Tensor d_gate_up;  // of the bank, or undefined
  at::Tensor d_down;
  at::Tensor d_constant;
};

void backward_expert(
    const Plan& plan,
    std::int64_t e,
    const at::Tensor& dy,
    const variable_list& saved,
    Gradients& out) {
  const at::Tensor& x = saved[0];
  const at::Tensor& weights = saved[1];
  const at::Tensor tokens = plan.rows(plan.dispatch.token, e);
  const at::Tensor choice = plan.rows(plan.dispatch.choice, e);
  const at::Tensor mix =
      weights.view({-1}).index_select(0, choice).to(dy.scalar_type());
  const at::Tensor dye = kernels::gather_rows(dy, tokens);
  at::Tensor d_mix = at::zeros({dye.size(0)}, weights.options());
  if (saved[4].defined()) {
    d_mix.add_(at::mv(dye, saved[4][e]));
    if (out.d_constant.defined()) {
      out.d_constant[e].copy_(at::mv(dye.t(), mix));
    }
  }
  if (plan.width(e) == 0) {
    plan.rows(out.d_rows, e).zero_();
  } else {
    // dL/dh = w (dy downᵀ), and dL/dw = ⟨dy downᵀ, h⟩: the expert's output is
    // not needed again.
    at::Tensor dh = at::mm(dye, plan.down_of(saved[3], e).t());
    d_mix.add_((dh * plan.h[e]).sum(1, false, at::kFloat));
    dh.mul_(mix.unsqueeze(1));
    const at::Tensor dgu = kernels::swiglu_backward(dh, plan.gate_up[e]);
    at::Tensor dx = plan.rows(out.d_rows, e);
    at::mm_out(dx, dgu, plan.gate_up_of(saved[2], e));
    const bool tapped =
        plan.tap != nullptr && plan.tap->wants_expert_gradients();
    if (tapped || out.d_gate_up.defined() || out.d_down.defined()) {
      const at::Tensor weighted = dye.mul_(mix.unsqueeze(1));
      const at::Tensor xe = kernels::gather_rows(x, tokens);
      if (out.d_gate_up.defined()) {
        at::Tensor d_gate_up = plan.gate_up_of(out.d_gate_up, e);
        at::mm_out(d_gate_up, dgu.t(), xe);
      }
      if (out.d_down.defined()) {
        at::Tensor d_down = plan.down_of(out.d_down, e);
        at::mm_out(d_down, plan.h[e].t(), weighted);
      }
      if (tapped) {
        plan.tap->on_expert_gradient(
            plan.layer, {e, xe, plan.h[e], dh, dgu, weighted, mix});
      }
    }
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
      const std::optional<at::Tensor>& others,
      const c10::intrusive_ptr<Plan>& plan) {
    const variable_list bank{gate_up, down, constant.value_or(at::Tensor())};
    const std::int64_t experts =
        static_cast<std::int64_t>(plan->offsets.size()) - 1;
    plan->gate_up.resize(experts);
    plan->h.resize(experts);
    at::Tensor ys =
        at::empty({plan->dispatch.token.size(0), x.size(1)}, x.options());
    for_each_expert(plan->dispatch, x.is_cpu(), [&](std::int64_t e) {
      forward_expert(*plan, e, x, weights, bank, ys);
    });
    ctx->save_for_backward({x, weights, gate_up, down, bank[2]});
    ctx->saved_data["others"] = others.has_value();
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return kernels::combine(ys, plan->dispatch.position, weights);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto holder = ctx->saved_data["plan"].toCapsule();
    const Plan* plan = static_cast<const Plan*>(holder.get());
    const at::Tensor dy = grads[0].contiguous();
    Gradients out;
    out.d_rows =
        at::empty({plan->dispatch.token.size(0), dy.size(1)}, dy.options());
    out.d_weights = at::zeros({saved[1].numel()}, saved[1].options());
    // Written expert by expert; those that no token chose are filled here.
    if (ctx->needs_input_grad(2)) out.d_gate_up = at::empty_like(saved[2]);
    if (ctx->needs_input_grad(3)) out.d_down = at::empty_like(saved[3]);
    for (std::int64_t e = 0; e + 1 < std::ssize(plan->offsets); ++e) {
      if (plan->dispatch.count(e) > 0) continue;
      if (out.d_gate_up.defined()) plan->gate_up_of(out.d_gate_up, e).zero_();
      if (out.d_down.defined()) plan->down_of(out.d_down, e).zero_();
    }
    if (saved[4].defined() && ctx->needs_input_grad(4)) {
      out.d_constant = at::zeros_like(saved[4]);
    }
    if (plan->tap != nullptr && plan->tap->wants_expert_gradients()) {
      plan->tap->on_output_gradient(plan->layer, dy);
    }
    for_each_expert(plan->dispatch, dy.is_cpu(), [&](std::int64_t e) {
      backward_expert(*plan, e, dy, saved, out);
    });
    at::Tensor d_others;
    if (ctx->saved_data["others"].toBool()) {
      d_others = output_products(
          {plan->offsets, saved[2], saved[3], saved[4]}, saved[0], dy);
    }
    const at::Tensor dx =
        kernels::gather_rows_backward(out.d_rows, plan->dispatch.position);
    return {
        dx,
        out.d_weights.view_as(saved[1]),
        out.d_gate_up,
        out.d_down,
        out.d_constant,
        d_others,
        at::Tensor()};
  }
};

}  // namespace

at::Tensor experts_forward(
    const ExpertPass& pass, const at::Tensor& x, const Mixture& mixture) {
  const at::Tensor& weights = mixture.weights;
  auto plan = c10::make_intrusive<Plan>();
  plan->dispatch = dispatch(mixture.selected, pass.bank.size());
  plan->offsets = pass.bank.offsets;
  plan->tap = pass.tap;
  plan->layer = pass.layer;
  plan->differentiated =
      at::GradMode::is_enabled() &&
      (x.requires_grad() || weights.requires_grad() ||
       pass.bank.gate_up.requires_grad() || pass.bank.down.requires_grad());
  const auto given = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional(tensor) : std::nullopt;
  };
  return ExpertsFunction::apply(
      x,
      weights,
      pass.bank.gate_up,
      pass.bank.down,
      given(pass.bank.constant),
      given(mixture.others),
      plan);
}

}  // namespace fettle::model
