// SPDX-License-Identifier: Apache-2.0
#include "model/layers/fused_attention.h"

#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace fettle::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// While it lives, libtorch's operators are deterministic. Nothing else of
// libtorch may want it otherwise meanwhile.
class FixedOrder {
 public:
  FixedOrder() {
    auto& context = at::globalContext();
    // Else every new tensor would be filled with NaN.
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  }
  ~FixedOrder() {
    at::globalContext().setDeterministicAlgorithms(false, false);
  }
  FixedOrder(const FixedOrder&) = delete;
  FixedOrder& operator=(const FixedOrder&) = delete;
};

// libtorch's attention, or what it says of it, for the options.
template <class Operator>
auto with_options(
    Operator op,
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const FusedAttentionOptions& options) {
  return op(
      query,
      key,
      value,
      options.mask,
      /*dropout_p=*/0.0,
      options.causal,
      options.scale,
      options.grouped);
}

at::Tensor attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const FusedAttentionOptions& options) {
  return with_options(
      at::scaled_dot_product_attention, query, key, value, options);
}

// Whether libtorch has one kernel for it. What it is composed of elsewhere
// needs no telling, and cuBLAS would refuse to be told.
bool fuses(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const FusedAttentionOptions& options) {
  return with_options(at::_fused_sdp_choice, query, key, value, options) !=
         static_cast<std::int64_t>(at::SDPBackend::math);
}

// Has an autograd graph of its own, so that its backward pass can be set apart.
struct InFixedOrder : torch::autograd::Function<InFixedOrder> {
  static at::Tensor forward(
      AutogradContext* ctx,
      const at::Tensor& query,
      const at::Tensor& key,
      const at::Tensor& value,
      const FusedAttentionOptions& options) {
    const at::AutoGradMode grad(true);
    variable_list inputs{query.detach(), key.detach(), value.detach()};
    for (at::Tensor& input : inputs) input.set_requires_grad(true);
    const at::Tensor out = attention(inputs[0], inputs[1], inputs[2], options);
    ctx->saved_data["inputs"] = inputs;
    ctx->saved_data["out"] = out;
    return out.detach();
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const FixedOrder fixed_order;
    variable_list found = torch::autograd::grad(
        {ctx->saved_data["out"].toTensor()},
        ctx->saved_data["inputs"].toTensorVector(),
        {grads[0]});
    ctx->saved_data.clear();  // else the layer's graph would keep it
    found.emplace_back();     // of the options
    return found;
  }
};

}  // namespace

at::Tensor fused_attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const FusedAttentionOptions& options) {
  const bool differentiated =
      at::GradMode::is_enabled() &&
      (query.requires_grad() || key.requires_grad() || value.requires_grad());
  if (!differentiated || !fuses(query, key, value, options)) {
    return attention(query, key, value, options);
  }
  return InFixedOrder::apply(query, key, value, options);
}

}  // namespace fettle::model
