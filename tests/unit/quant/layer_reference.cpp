// SPDX-License-Identifier: Apache-2.0
#include "layer_reference.h"

#include <algorithm>

namespace fettle::quant::testing {
namespace {

using model::Role;

// A layer's weights in fp64, by what they are.
class Weights {
 public:
  Weights(const model::ModelReader& reader, std::int64_t layer)
      : reader_(reader),
        layer_(layer),
        ids_(model::layer_weights(reader.config(), layer)) {}

  bool has(Role role) const {
    return std::ranges::find(ids_, role, &model::WeightId::role) != ids_.end();
  }
  at::Tensor of(Role role, std::int64_t expert = -1) const {
    return reader_.read({role, layer_, expert}).to(at::kDouble);
  }
  at::Tensor bias_or_zero(Role role) const {
    return has(role) ? of(role) : at::zeros({1}, at::kDouble);
  }

 private:
  const model::ModelReader& reader_;
  std::int64_t layer_;
  std::vector<model::WeightId> ids_;
};

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * weight;
}

// The values of a token's heads, which are what attention gives.
at::Tensor attention_gqa(
    const model::ModelConfig& config,
    const Weights& weights,
    const at::Tensor& x,
    LayerReference& seen) {
  for (const Role role : {Role::kQProj, Role::kKProj, Role::kVProj}) {
    seen.inputs[{role, -1}] = x;
  }
  const at::Tensor v = at::mm(x, weights.of(Role::kVProj).t()) +
                       weights.bias_or_zero(Role::kVBias);
  const model::AttentionConfig& a = config.attention();
  return v.view({x.size(0), a.kv_heads, -1})
      .repeat_interleave(a.heads / a.kv_heads, 1)
      .reshape({x.size(0), -1});
}

at::Tensor attention_mla(
    const model::ModelConfig& config,
    const Weights& weights,
    const at::Tensor& x,
    LayerReference& seen) {
  const model::AttentionConfig& a = config.attention();
  const double eps = config.latent_norm_eps;
  if (a.q_lora_rank == 0) {
    seen.inputs[{Role::kQProj, -1}] = x;
  } else {
    seen.inputs[{Role::kQAProj, -1}] = x;
    const at::Tensor narrow = at::mm(x, weights.of(Role::kQAProj).t());
    seen.inputs[{Role::kQBProj, -1}] =
        norm(narrow, weights.of(Role::kQANorm), eps);
  }
  seen.inputs[{Role::kKvAProj, -1}] = x;
  const at::Tensor latent = norm(
      at::mm(x, weights.of(Role::kKvAProj).t()).narrow(1, 0, a.kv_lora_rank),
      weights.of(Role::kKvANorm),
      eps);
  seen.inputs[{Role::kKvBProj, -1}] = latent;
  return at::mm(latent, weights.of(Role::kKvBProj).t())
      .view({x.size(0), a.heads, -1})
      .narrow(2, a.qk_nope_head_dim, a.v_head_dim)
      .reshape({x.size(0), -1});
}

at::Tensor mlp(
    const model::MlpRoles& roles,
    std::int64_t expert,
    const Weights& weights,
    const at::Tensor& x,
    LayerReference& seen) {
  const at::Tensor gate = at::mm(x, weights.of(roles.gate, expert).t());
  const at::Tensor h =
      gate * gate.sigmoid() * at::mm(x, weights.of(roles.up, expert).t());
  seen.inputs[{roles.gate, expert}] = x;
  seen.inputs[{roles.up, expert}] = x;
  seen.inputs[{roles.down, expert}] = h;
  return at::mm(h, weights.of(roles.down, expert).t());
}

at::Tensor experts(
    const model::ModelConfig& config,
    std::int64_t layer,
    const Weights& weights,
    const at::Tensor& x,
    LayerReference& seen) {
  seen.probs = at::mm(x, weights.of(Role::kRouter).t()).softmax(-1);
  const auto [highest, chosen] =
      seen.probs.topk(config.layers[layer].top_k, -1);
  at::Tensor weight = highest;
  if (config.router.renormalize) weight = weight / weight.sum(-1, true);
  seen.mixing = at::zeros_like(seen.probs)
                    .scatter(1, chosen, weight * config.router.scale);
  at::Tensor y = at::zeros_like(x);
  for (std::int64_t e = 0; e < seen.probs.size(1); ++e) {
    y += seen.mixing.narrow(1, e, 1) *
         mlp(model::kExpertRoles, e, weights, x, seen);
  }
  if (!weights.has(Role::kSharedGate)) return y;
  at::Tensor shared = mlp(model::kSharedRoles, -1, weights, x, seen);
  if (weights.has(Role::kSharedRouter)) {
    shared *= at::mm(x, weights.of(Role::kSharedRouter).t()).sigmoid();
  }
  return y + shared;
}

}  // namespace

Hessian LayerReference::moments(
    const model::WeightId& id, const HessianOptions& options) const {
  at::Tensor x = inputs.at({id.role, id.expert});
  if (id.expert >= 0) {
    at::Tensor weight = options.calibration == Calibration::kAll
                            ? probs.select(1, id.expert)
                            : mixing.select(1, id.expert);
    const at::Tensor counted = weight.nonzero().squeeze(1);
    if (!options.gate_weighted) weight = at::ones_like(weight);
    x = (x * weight.unsqueeze(1)).index_select(0, counted);
  }
  return {at::mm(x.t(), x), x.size(0)};
}

LayerReference compute_layer(
    const model::ModelReader& reader, std::int64_t layer, const at::Tensor& x) {
  const model::ModelConfig& config = reader.config();
  const Weights weights(reader, layer);
  const double eps = config.norm_eps;
  LayerReference seen;
  const at::Tensor normed = norm(x, weights.of(Role::kInputNorm), eps);
  const at::Tensor mixed = config.attention().kind == model::AttentionKind::kMla
                               ? attention_mla(config, weights, normed, seen)
                               : attention_gqa(config, weights, normed, seen);
  seen.inputs[{Role::kOProj, -1}] = mixed;
  const at::Tensor h = x + at::mm(mixed, weights.of(Role::kOProj).t()) +
                       weights.bias_or_zero(Role::kOBias);
  const at::Tensor after = norm(h, weights.of(Role::kPostAttentionNorm), eps);
  seen.out = h + (config.layers[layer].sparse
                      ? experts(config, layer, weights, after, seen)
                      : mlp(model::kDenseRoles, -1, weights, after, seen));
  return seen;
}

std::vector<LayerReference> compute_layers(
    const model::ModelReader& reader, const at::Tensor& ids) {
  std::vector<LayerReference> layers;
  at::Tensor x =
      reader.read({Role::kEmbedTokens}).to(at::kDouble).index_select(0, ids);
  for (std::int64_t l = 0; l < reader.config().num_layers(); ++l) {
    layers.push_back(compute_layer(reader, l, x));
    x = layers.back().out;
  }
  return layers;
}

double squares_under(const at::Tensor& a, const at::Tensor& moments) {
  const at::Tensor wide = a.to(at::kDouble);
  return at::mm(at::mm(wide, moments.to(at::kDouble)), wide.t())
      .trace()
      .item<double>();
}

}  // namespace fettle::quant::testing
