// SPDX-License-Identifier: Apache-2.0
#include "model/layers/differentiable.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "kernels/attention.h"
#include "kernels/expert_rows.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace fettle::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Kernels want the values of a row side by side; a gradient comes in whatever
// strides the operation behind it has left.
at::Tensor in_rows(const at::Tensor& gradient) {
  return gradient.stride(-1) == 1 ? gradient : gradient.contiguous();
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& x,
      const at::Tensor& weight,
      double eps,
      double offset) {
    auto result = kernels::rms_norm(x, weight, eps, {.offset = offset});
    ctx->save_for_backward({x, weight, result.rstd});
    ctx->saved_data["offset"] = offset;
    return result.y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    kernels::RmsNormBackwardOptions options;
    options.offset = ctx->saved_data["offset"].toDouble();
    options.weight_gradient = ctx->needs_input_grad(1);
    const auto result = kernels::rms_norm_backward(
        in_rows(grads[0]), saved[0], saved[1], saved[2], options);
    at::Tensor dw = result.dw;
    if (dw.defined()) dw = dw.to(saved[1].scalar_type());
    return {result.dx, dw, at::Tensor(), at::Tensor()};
  }
};

struct MovedRowsFunction : torch::autograd::Function<MovedRowsFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& x,
      const at::Tensor& from,
      const at::Tensor& back) {
    ctx->save_for_backward({back});
    return kernels::gather_rows(x, from);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor back = ctx->get_saved_variables()[0].unsqueeze(1);
    return {
        kernels::gather_rows_backward(grads[0].contiguous(), back),
        at::Tensor(),
        at::Tensor()};
  }
};

kernels::RopeOptions rope_options(bool interleaved, std::int64_t start) {
  kernels::RopeOptions options;
  options.pairing =
      interleaved ? RopePairing::kInterleaved : RopePairing::kHalf;
  options.start = start;
  return options;
}

struct RotaryFunction : torch::autograd::Function<RotaryFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& x,
      const at::Tensor& cos,
      const at::Tensor& sin,
      bool interleaved,
      std::int64_t start) {
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["interleaved"] = interleaved;
    ctx->saved_data["start"] = start;
    return kernels::rope(x, cos, sin, rope_options(interleaved, start));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto options = rope_options(
        ctx->saved_data["interleaved"].toBool(),
        ctx->saved_data["start"].toInt());
    const at::Tensor dx =
        kernels::rope_backward(in_rows(grads[0]), saved[0], saved[1], options);
    return {dx, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// A sink adds to the softmax's denominator alone.
void add_sinks(kernels::Attention& result, const at::Tensor& sinks) {
  const at::Tensor lse = at::logaddexp(result.lse, sinks);
  result.out.mul_((result.lse - lse).exp_().unsqueeze(2));
  result.lse = lse;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& q,
      const at::Tensor& k,
      const at::Tensor& v,
      const std::optional<at::Tensor>& sinks,
      const std::vector<std::int64_t>& starts,
      std::int64_t window,
      double scale) {
    auto result = kernels::attention(q, k, v, {starts, window, scale});
    if (sinks) add_sinks(result, *sinks);
    ctx->save_for_backward(
        {q, k, v, result.out, result.lse, sinks.value_or(at::Tensor())});
    ctx->saved_data["starts"] = starts;
    ctx->saved_data["window"] = window;
    ctx->saved_data["scale"] = scale;
    return result.out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor d_out = grads[0].contiguous();
    const auto d = kernels::attention_backward(
        d_out,
        {saved[3], saved[4]},
        saved[0],
        saved[1],
        saved[2],
        {ctx->saved_data["starts"].toIntVector(),
         ctx->saved_data["window"].toInt(),
         ctx->saved_data["scale"].toDouble()});
    at::Tensor d_sinks;
    if (saved[5].defined() && ctx->needs_input_grad(3)) {
      // Its share of a row's softmax, times what the row's values lose to it.
      d_sinks = (saved[5] - saved[4])
                    .exp_()
                    .mul_((d_out * saved[3]).sum(2))
                    .sum(0)
                    .neg_();
    }
    return {
        d.dq, d.dk, d.dv, d_sinks, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct GatedFunction : torch::autograd::Function<GatedFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& gate_up,
      std::int64_t activation) {
    ctx->save_for_backward({gate_up});
    ctx->saved_data["activation"] = activation;
    return kernels::swiglu(
        gate_up, static_cast<kernels::Activation>(activation));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto activation =
        static_cast<kernels::Activation>(ctx->saved_data["activation"].toInt());
    return {
        kernels::swiglu_backward(grads[0].contiguous(), saved[0], activation),
        at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return rms_norm(x, weight, NormKind{eps});
}

at::Tensor rms_norm(
    const at::Tensor& x, const at::Tensor& weight, const NormKind& kind) {
  // Autograd's way in takes longer than a decoded token's row.
  if (!at::GradMode::is_enabled()) {
    return kernels::rms_norm(x, weight, kind.eps, {.offset = kind.offset}).y;
  }
  return RmsNormFunction::apply(x, weight, kind.eps, kind.offset);
}

at::Tensor apply_rotary(
    const at::Tensor& x, const RotaryTables& tables, const RotaryPlace& place) {
  const bool interleaved = place.pairing == RopePairing::kInterleaved;
  if (!at::GradMode::is_enabled()) {
    return kernels::rope(
        x, tables.cos, tables.sin, rope_options(interleaved, place.start));
  }
  return RotaryFunction::apply(
      x, tables.cos, tables.sin, interleaved, place.start);
}

at::Tensor causal_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const kernels::AttentionOptions& options,
    const at::Tensor& sinks) {
  return AttentionFunction::apply(
      q,
      k,
      v,
      sinks.defined() ? std::optional(sinks) : std::nullopt,
      options.starts,
      options.window,
      options.scale);
}

at::Tensor gated(const at::Tensor& gate_up, kernels::Activation activation) {
  return GatedFunction::apply(gate_up, static_cast<std::int64_t>(activation));
}

at::Tensor moved_rows(
    const at::Tensor& x, const at::Tensor& from, const at::Tensor& back) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape[0] = from.size(0);
  return MovedRowsFunction::apply(
             x.contiguous().view({x.size(0), -1}), from, back)
      .view(shape);
}

}  // namespace fettle::model
