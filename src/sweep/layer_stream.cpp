// SPDX-License-Identifier: Apache-2.0
#include "sweep/layer_stream.h"

#include <fmt/format.h>

#include <utility>

#include "ranks/group.h"

namespace fettle::sweep {

LayerStream::LayerStream(
    const model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const store::ActivationStoreOptions& activations,
    const Division& division)
    : model_(model), activations_(activations) {
  options_.team = division.team;
  options_.shard_ends = division.shard_ends;
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
  if (division.team.divides()) {
    tokens_ = ranks::sum(*division.team.group, tokens_);
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

void LayerStream::pass_all(const Pass& pass, const Each& each) const {
  const at::NoGradGuard no_grad;
  ShardSums sums(fmt::format("layer {}", pass.layer), pass.sums, options_);
  for (std::int64_t m = 0; m < micro_batches(); ++m) {
    each(m);
    sums.end_micro_batch(m);
  }
  sums.end();
}

void LayerStream::look(const Pass& pass, const Seen& seen) {
  pass_all(pass, [&](std::int64_t m) {
    const at::Tensor outputs = compute(pass, m);
    if (seen) seen(m, outputs);
  });
}

void LayerStream::advance(const Pass& pass) {
  pass_all(pass, [&](std::int64_t m) {
    activations_.put({0, m}, compute(pass, m));
  });
}

}  // namespace fettle::sweep
