// SPDX-License-Identifier: Apache-2.0
#include "sweep/layer_stream.h"

#include <utility>

namespace fettle::sweep {

LayerStream::LayerStream(
    const model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const store::ActivationStoreOptions& activations)
    : model_(model), activations_(activations) {
  const at::NoGradGuard no_grad;
  batches_.reserve(batches.size());
  for (const model::TokenBatch& batch : batches) {
    model::MicroBatch next = model::make_micro_batch(
        model.config(), batch.to(model.options().device), tokens_);
    activations_.put(
        {0, micro_batches()}, model::embed(model, next.tokens.ids));
    batches_.push_back(std::move(next));
    tokens_ += batch.tokens();
  }
}

at::Tensor LayerStream::inputs(std::int64_t m) const {
  return activations_.get({0, m}).to(
      model_.options().device, /*non_blocking=*/true);
}

at::Tensor LayerStream::compute(const Pass& pass, std::int64_t m) const {
  const model::LayerContext context{
      .config = pass.config,
      .layer = pass.layer,
      .batch = batches_[m],
      .tap = pass.tap};
  return model::decoder_layer(context, pass.weights, inputs(m));
}

void LayerStream::look(const Pass& pass, const Seen& seen) {
  const at::NoGradGuard no_grad;
  for (std::int64_t m = 0; m < micro_batches(); ++m) {
    const at::Tensor outputs = compute(pass, m);
    if (seen) seen(m, outputs);
  }
}

void LayerStream::advance(const Pass& pass) {
  const at::NoGradGuard no_grad;
  for (std::int64_t m = 0; m < micro_batches(); ++m) {
    activations_.put({0, m}, compute(pass, m));
  }
}

}  // namespace fettle::sweep
