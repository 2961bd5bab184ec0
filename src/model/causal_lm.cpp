// SPDX-License-Identifier: Apache-2.0
#include "model/causal_lm.h"

#include "model/layers/decoded_product.h"
#include "model/layers/differentiable.h"
#include "model/weights/device_transfer.h"
#include "model/weights/packed_layer.h"

namespace fettle::model {

namespace {

// Whether embeddings and head may stay in bfloat16 beside float32: a decoded
// token reads one row, and all of the head, whose products take them as they
// are.
bool keeps_half(const ModelReader& reader, const ModelOptions& options) {
  const auto is_half = [&](Role role) {
    return reader.packed_header({role}) == nullptr &&
           reader.stored_form({role}) == nullptr &&
           reader.form({role}).dtype == at::kBFloat16;
  };
  return options.keep_packed && options.device.is_cpu() &&
         options.compute_type == at::kFloat && is_half(Role::kEmbedTokens) &&
         (reader.config().tie_word_embeddings || is_half(Role::kLmHead));
}

GlobalWeights globals_of(
    const ModelReader& reader, const ModelOptions& options) {
  if (!keeps_half(reader, options)) {
    return reader.read_globals(options.compute_type);
  }
  GlobalWeights globals = reader.read_globals(at::kBFloat16);
  globals.final_norm = reader.read({Role::kFinalNorm}).to(options.compute_type);
  return globals;
}

}  // namespace

CausalLm::CausalLm(
    const std::filesystem::path& folder, const ModelOptions& options)
    : CausalLm(std::make_unique<ModelReader>(folder), options) {}

CausalLm::CausalLm(
    std::unique_ptr<ModelReader> reader, const ModelOptions& options)
    : options_(options), reader_(std::move(reader)) {
  globals_ = to_device(globals_of(*reader_, options_), options_.device);
  loaded_ = loaded_bytes(*reader_, options_.compute_type);
  const at::TensorOptions host =
      host_options(options_.compute_type, options_.device);
  cache_ = std::make_unique<store::LayerCache<LayerWeights>>(
      [this, host](std::int64_t layer) {
        return std::make_shared<LayerWeights>(
            to_device(reader_->read_layer(layer, host), options_.device));
      },
      [this](std::int64_t layer) { return loaded_.layers[layer].kept; },
      options_.resident_bytes);
}

std::shared_ptr<LayerWeights> CausalLm::acquire(
    std::int64_t layer, std::int64_t next) {
  const at::NoGradGuard no_grad;
  const auto cached = cache_->acquire(layer, options_.read_ahead ? next : -1);
  const bool unpack = cached->packed != nullptr && !options_.keep_packed;
  if (!patch_ && !unpack) return cached;
  const auto own = std::make_shared<LayerWeights>(
      unpack ? unpacked(*cached, config(), layer, options_.compute_type)
             : *cached);
  if (patch_) patch_(layer, *own);
  return own;
}

double embedding_multiplier(const CausalLm& model) {
  const EndsConfig& ends = model.config().ends;
  if (!ends.rounds_embedding_multiplier) return ends.embedding_multiplier;
  return at::scalar_tensor(ends.embedding_multiplier, at::kFloat)
      .to(model.options().compute_type)
      .item<double>();
}

at::Tensor embed(const CausalLm& model, const at::Tensor& ids) {
  const at::Tensor rows = model.globals().embed_tokens.index_select(0, ids).to(
      model.options().compute_type);
  const double multiplier = embedding_multiplier(model);
  return multiplier == 1.0 ? rows : rows * multiplier;
}

namespace {

at::Tensor logits_of(
    const CausalLm& model, const at::Tensor& hidden, const ProductKind& kind) {
  const at::Tensor normed = rms_norm(
      hidden,
      model.globals().final_norm,
      {model.config().norm_eps, model.config().norm_offset});
  const at::Tensor& stored = model.globals().lm_head;
  const at::Tensor head =
      kind.decodes ? stored : stored.to(normed.scalar_type());
  const at::Tensor products = product(normed, head.t(), kind).to(at::kFloat);
  const EndsConfig& ends = model.config().ends;
  const at::Tensor scaled =
      ends.logits_scaling == 1.0 ? products : products / ends.logits_scaling;
  return ends.soft_cap == 0.0 ? scaled
                              : (scaled / ends.soft_cap).tanh() * ends.soft_cap;
}

}  // namespace

at::Tensor logits(const CausalLm& model, const at::Tensor& hidden) {
  return logits_of(model, hidden, {.decodes = false});
}

at::Tensor decoded_logits(const CausalLm& model, const at::Tensor& hidden) {
  return logits_of(model, hidden, {.decodes = true});
}

}  // namespace fettle::model
