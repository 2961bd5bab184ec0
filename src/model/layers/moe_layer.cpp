// SPDX-License-Identifier: Apache-2.0
#include "model/layers/moe_layer.h"

#include "model/layers/decoded_product.h"
#include "model/layers/dense_mlp.h"
#include "model/layers/experts.h"
#include "model/layers/packed_products.h"
#include "model/layers/router.h"

namespace fettle::model {
namespace {

at::Tensor shared_expert(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  const at::Tensor y = dense_mlp(context, weights, kSharedRoles, x);
  if (!weights.shared_router.defined()) return y;
  const at::Tensor gate =
      product(x, weights.shared_router.t(), {context.decodes()});
  return gate.sigmoid() * y;
}

// Lets the tap see the gradient of the router's logits when that is computed.
void tap_router_gradient(
    const LayerContext& context,
    const at::Tensor& x,
    const at::Tensor& logits) {
  if (context.tap == nullptr || !logits.requires_grad()) return;
  logits.register_hook([tap = context.tap,
                        layer = context.layer,
                        seen = x.detach()](const at::Tensor& d_logits) {
    tap->on_router_gradient(layer, seen, d_logits);
  });
}

at::Tensor noise_of(const LayerContext& context, const at::Tensor& x) {
  if (context.router == nullptr || context.router->noise == 0.0) return {};
  return gumbel_noise(
             *context.router,
             context.layer,
             context.batch.first_token,
             x.size(0),
             context.shape().num_experts())
      .to(x.device());
}

}  // namespace

at::Tensor moe_layer(
    const LayerContext& context,
    const LayerWeights& weights,
    const MoeInput& input) {
  const LayerConfig& layer = context.shape();
  const at::Tensor& x = input.experts;
  const Routing routing = route(
      context.config.router,
      layer.top_k,
      input.router,
      {weights.router,
       weights.router_correction,
       weights.router_bias,
       weights.condensers,
       noise_of(context, x),
       weights.expert_scale,
       context.decodes()});
  if (context.tap != nullptr) {
    context.tap->on_routing(
        context.layer,
        {x, routing.logits, routing.probs, routing.selected, routing.weights});
    tap_router_gradient(context, input.router, routing.logits);
  }
  at::Tensor others;
  if (context.router != nullptr && context.router->dense_gradient &&
      routing.probs.requires_grad()) {
    others = weights_of_others(context.config.router, routing);
  }
  const Mixture mixture{routing.selected, routing.weights, others};
  const at::Tensor y =
      weights.experts.gate_up.defined() || weights.experts.is_apart()
          ? experts_forward(
                {context.layer,
                 weights.experts,
                 context.tap,
                 context.decodes()},
                x,
                mixture)
          : packed_experts_forward(weights, x, mixture, context.activations);
  return layer.shared_width > 0 ? y + shared_expert(context, weights, x) : y;
}

}  // namespace fettle::model
