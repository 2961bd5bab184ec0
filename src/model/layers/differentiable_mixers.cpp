// SPDX-License-Identifier: Apache-2.0
#include "model/layers/differentiable_mixers.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <vector>

#include "core/error.h"

namespace fettle::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ConvolutionFunction : torch::autograd::Function<ConvolutionFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& x,
      const at::Tensor& weight,
      const std::optional<at::Tensor>& bias,
      const std::vector<std::int64_t>& starts,
      bool silu) {
    const at::Tensor known = bias.value_or(at::Tensor());
    ctx->save_for_backward({x, weight, known});
    ctx->saved_data["starts"] = starts;
    ctx->saved_data["silu"] = silu;
    return kernels::causal_conv1d(
        x, {weight, known}, {.starts = starts, .silu = silu, .state = {}});
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto d = kernels::causal_conv1d_backward(
        grads[0].contiguous(),
        saved[0],
        {saved[1], saved[2]},
        {.starts = ctx->saved_data["starts"].toIntVector(),
         .silu = ctx->saved_data["silu"].toBool(),
         .state = {}});
    const at::ScalarType type = saved[1].scalar_type();
    return {
        d.dx,
        d.dweight.to(type),
        d.dbias.defined() ? d.dbias.to(type) : at::Tensor(),
        at::Tensor(),
        at::Tensor()};
  }
};

struct GatedDeltaFunction : torch::autograd::Function<GatedDeltaFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& q,
      const at::Tensor& k,
      const at::Tensor& v,
      const at::Tensor& g,
      const at::Tensor& beta,
      const std::vector<std::int64_t>& starts,
      double eps) {
    ctx->save_for_backward({q, k, v, g, beta});
    ctx->saved_data["starts"] = starts;
    ctx->saved_data["eps"] = eps;
    return kernels::gated_delta(
        {q, k, v, g, beta}, {.starts = starts, .eps = eps, .state = {}});
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto d = kernels::gated_delta_backward(
        grads[0].contiguous(),
        {saved[0], saved[1], saved[2], saved[3], saved[4]},
        {.starts = ctx->saved_data["starts"].toIntVector(),
         .eps = ctx->saved_data["eps"].toDouble(),
         .state = {}});
    return {d.dq, d.dk, d.dv, d.dg, d.dbeta, at::Tensor(), at::Tensor()};
  }
};

struct SelectiveScanFunction
    : torch::autograd::Function<SelectiveScanFunction> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& x,
      const at::Tensor& dt,
      const at::Tensor& a,
      const at::Tensor& b,
      const at::Tensor& c,
      const at::Tensor& d,
      const std::vector<std::int64_t>& starts) {
    ctx->save_for_backward({x, dt, a, b, c, d});
    ctx->saved_data["starts"] = starts;
    return kernels::selective_scan(
        {x, dt, a, b, c, d}, {.starts = starts, .state = {}});
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto in = ctx->get_saved_variables();
    const auto d = kernels::selective_scan_backward(
        grads[0].contiguous(),
        {in[0], in[1], in[2], in[3], in[4], in[5]},
        {.starts = ctx->saved_data["starts"].toIntVector(), .state = {}});
    return {d.dx, d.ddt, d.da, d.db, d.dc, d.dd, at::Tensor()};
  }
};

}  // namespace

at::Tensor causal_convolution(
    const at::Tensor& x,
    const kernels::ConvolutionWeights& weights,
    const kernels::ConvolutionOptions& options) {
  FETTLE_ASSERT(!options.state.defined());
  return ConvolutionFunction::apply(
      x,
      weights.weight,
      weights.bias.defined() ? std::optional(weights.bias) : std::nullopt,
      options.starts,
      options.silu);
}

at::Tensor gated_delta_rule(
    const kernels::GatedDeltaInputs& inputs,
    const kernels::GatedDeltaOptions& options) {
  FETTLE_ASSERT(!options.state.defined());
  return GatedDeltaFunction::apply(
      inputs.q,
      inputs.k,
      inputs.v,
      inputs.g,
      inputs.beta,
      options.starts,
      options.eps);
}

at::Tensor selective_scan(
    const kernels::SelectiveScanInputs& inputs,
    const kernels::SelectiveScanOptions& options) {
  FETTLE_ASSERT(!options.state.defined());
  return SelectiveScanFunction::apply(
      inputs.x,
      inputs.dt,
      inputs.a,
      inputs.b,
      inputs.c,
      inputs.d,
      options.starts);
}

}  // namespace fettle::model
