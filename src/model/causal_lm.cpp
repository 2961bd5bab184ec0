// SPDX-License-Identifier: Apache-2.0
#include "model/causal_lm.h"

#include "model/layers/decoded_product.h"
#include "model/layers/differentiable.h"
#include "model/weights/device_transfer.h"
#include "model/weights/packed_layer.h"

namespace fettle::model {

CausalLm::CausalLm(
    const std::filesystem::path& folder, const ModelOptions& options)
    : CausalLm(std::make_unique<ModelReader>(folder), options) {}

CausalLm::CausalLm(
    std::unique_ptr<ModelReader> reader, const ModelOptions& options)
    : options_(options),
      reader_(std::move(reader)),
      globals_type_(globals_type(
          reader_->config(),
          reader_->forms(),
          options_.compute_type,
          options_.keep_packed && options_.device.is_cpu())) {
  reader_->check_tied_head();
  globals_.final_norm =
      reader_->read_global(Role::kFinalNorm, options_.compute_type)
          .to(options_.device);
  if (options_.hold_globals) {
    globals_.embed_tokens = read_global(Role::kEmbedTokens);
    globals_.lm_head = config().tie_word_embeddings
                           ? globals_.embed_tokens
                           : read_global(Role::kLmHead);
  }
  loaded_ = loaded_bytes(
      config(),
      reader_->forms(),
      options_.compute_type,
      options_.experts_apart);
  const at::TensorOptions host =
      host_options(options_.compute_type, options_.device);
  cache_ = std::make_unique<store::LayerCache<LayerWeights>>(
      [this, host](std::int64_t layer) {
        return std::make_shared<LayerWeights>(to_device(
            reader_->read_layer(layer, host, options_.experts_apart),
            options_.device));
      },
      [this](std::int64_t layer) { return loaded_.layers[layer].kept; },
      options_.resident_bytes);
}

at::Tensor CausalLm::read_global(Role role) const {
  return reader_->read_global(role, globals_type_).to(options_.device);
}

std::shared_ptr<const at::Tensor> CausalLm::lm_head() const {
  if (options_.hold_globals) {
    return std::make_shared<const at::Tensor>(globals_.lm_head);
  }
  std::shared_ptr<const at::Tensor> head = lm_head_.lock();
  if (head == nullptr) {
    head = std::make_shared<const at::Tensor>(read_global(
        config().tie_word_embeddings ? Role::kEmbedTokens : Role::kLmHead));
    lm_head_ = head;
  }
  return head;
}

at::Tensor CausalLm::embedding_rows(const at::Tensor& ids) const {
  const at::Tensor rows =
      options_.hold_globals
          ? globals_.embed_tokens.index_select(0, ids)
          : reader_->read_global_rows(
                Role::kEmbedTokens, ids.cpu(), options_.compute_type);
  return rows.to(
      at::TensorOptions(options_.device).dtype(options_.compute_type));
}

std::shared_ptr<LayerWeights> CausalLm::acquire(
    std::int64_t layer, std::int64_t next) {
  const at::NoGradGuard no_grad;
  const auto cached = cache_->acquire(layer, options_.read_ahead ? next : -1);
  const bool unpack = cached->packed != nullptr && !options_.keep_packed;
  if (!patch_ && !unpack) return cached;
  const auto own = std::make_shared<LayerWeights>(
      unpack ? unpacked(
                   *cached,
                   config(),
                   layer,
                   options_.compute_type,
                   options_.experts_apart)
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
  const at::Tensor rows = model.embedding_rows(ids);
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
  const auto stored = model.lm_head();
  const at::Tensor head =
      kind.decodes ? *stored : stored->to(normed.scalar_type());
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
