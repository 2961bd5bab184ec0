// SPDX-License-Identifier: Apache-2.0
#include "analyze/row_prices.h"

#include <algorithm>

namespace fettle::analyze {
namespace {

using model::Role;

at::Tensor squares(const at::Tensor& rows) {
  return rows.to(at::kFloat).square().sum(0);
}

// Half the mean of squares d [rows] over tokens that count as `weight`; an
// expert that few tokens chose is drawn toward the layer's mean, as if it had
// seen one mean token of it more.
struct Prior {
  double value = 0;   // of a row, a unit of weight
  double weight = 0;  // of a mean token

  at::Tensor price(const at::Tensor& d, double w) const {
    if (!(w + weight > 0)) return at::zeros_like(d);
    return (d + value * weight) * (0.5 / (w + weight));
  }
};

double sum_of(const at::Tensor& values) {
  return values.sum(at::kDouble).item<double>();
}

// Over all experts of a layer; `d` has their sums of squares.
Prior prior_of(
    const std::vector<at::Tensor>& d, double weights, double tokens) {
  double squares_sum = 0;
  double rows = 0;
  for (const at::Tensor& values : d) {
    squares_sum += sum_of(values);
    rows = std::max(rows, static_cast<double>(values.numel()));
  }
  if (!(weights > 0 && tokens > 0 && rows > 0)) return {};
  return {squares_sum / (weights * rows), weights / tokens};
}

}  // namespace

RowPriceObserver::RowPriceObserver(const model::ModelConfig& config)
    : config_(config) {
  prices_.layers.resize(config.layers.size());
  prices_.energy.resize(config.layers.size());
}

void RowPriceObserver::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward) return;
  const auto options = at::dtype(at::kFloat).device(weights.device());
  sums_ = {};
  sums_.d_output = at::zeros({config_.hidden_size}, options);
  for (const std::int64_t width : config_.layers[layer].expert_widths) {
    sums_.inputs.push_back(at::zeros({2 * width}, options));
    sums_.outputs.push_back(at::zeros({config_.hidden_size}, options));
    sums_.energy.push_back(at::zeros({width}, options));
    sums_.weights.push_back(at::zeros({2}, options));
  }
}

void RowPriceObserver::on_output_gradient(
    std::int64_t, const at::Tensor& d_output) {
  const at::NoGradGuard no_grad;
  sums_.d_output.add_(squares(d_output));
}

void RowPriceObserver::on_expert_gradient(
    std::int64_t, const model::ExpertGradView& view) {
  const at::NoGradGuard no_grad;
  const auto e = static_cast<std::size_t>(view.expert);
  const at::Tensor inputs = squares(view.d_gate_up);
  // Experts without a gate have one gradient a neuron.
  at::Tensor& into = sums_.inputs[e];
  into.narrow(0, into.size(0) - inputs.size(0), inputs.size(0)).add_(inputs);
  sums_.outputs[e].add_(squares(view.dy));
  const at::Tensor weight = view.weight.to(at::kFloat);
  sums_.energy[e].add_(squares(view.h.to(at::kFloat) * weight.unsqueeze(1)));
  sums_.weights[e][0].add_(weight.square().sum());
  sums_.weights[e][1].add_(static_cast<double>(weight.size(0)));
}

void RowPriceObserver::on_projection_gradient(
    std::int64_t, Role role, const at::Tensor&, const at::Tensor& dy) {
  const at::NoGradGuard no_grad;
  at::Tensor& sum = sums_.projections[role];
  sum = sum.defined() ? sum + squares(dy) : squares(dy);
}

void RowPriceObserver::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward) return;
  const at::NoGradGuard no_grad;
  if (!sums_.inputs.empty()) finish_experts(layer, weights);
  finish_others(layer);
  sums_ = {};
}

void RowPriceObserver::finish_experts(
    std::int64_t layer, const model::LayerWeights& weights) {
  const model::ExpertBank& bank = weights.experts;
  double seen = 0;
  double tokens = 0;
  for (const at::Tensor& weight : sums_.weights) {
    seen += weight[0].item<double>();
    tokens += weight[1].item<double>();
  }
  const bool gated = model::inputs_of(config_.activation) > 1;
  const Prior input = prior_of(sums_.inputs, seen, tokens);
  const Prior output = prior_of(sums_.outputs, seen, tokens);
  std::map<Role, std::vector<at::Tensor>> prices;
  for (std::int64_t e = 0; e < bank.size(); ++e) {
    const std::int64_t width = bank.width(e);
    const double weight = sums_.weights[e][0].item<double>();
    const at::Tensor both = input.price(sums_.inputs[e], weight);
    if (gated) {
      prices[Role::kExpertGate].push_back(both.narrow(0, 0, width));
    }
    prices[Role::kExpertUp].push_back(both.narrow(0, width, width));
    prices[Role::kExpertDown].push_back(output.price(sums_.outputs[e], weight));
  }
  for (const auto& [role, parts] : prices) {
    prices_.layers[layer][role] = at::cat(parts).cpu();
  }
  prices_.energy[layer] = at::cat(sums_.energy).cpu();
}

// A shared expert, and the MLP of a dense layer, add to what the layer's other
// outputs are added to; what enters them was not looked at.
void RowPriceObserver::finish_others(std::int64_t layer) {
  artifact::RolePrices& into = prices_.layers[layer];
  at::Tensor output = sums_.inputs.empty() ? at::Tensor() : sums_.d_output;
  for (const auto& [role, sum] : sums_.projections) {
    into[role] = (sum * 0.5).cpu();
    const bool residual = role == Role::kOProj || role == Role::kDeltaOut ||
                          role == Role::kMambaOut ||
                          role == Role::kShortConvOut;
    if (residual && !output.defined()) output = sum;
  }
  if (!output.defined()) return;
  for (const Role role : {Role::kSharedDown, Role::kDenseDown}) {
    if (model::role_info(role).exists(config_, config_.layers[layer])) {
      into[role] = (output * 0.5).cpu();
    }
  }
}

void RowPriceObserver::on_head_gradient(const sweep::HeadGradView& view) {
  const at::NoGradGuard no_grad;
  const at::Tensor sizes =
      view.normed.to(at::kFloat).square().mean(1, false, at::kFloat);
  const at::Tensor sum =
      at::mv(view.d_logits.to(at::kFloat).square().t(), sizes);
  const Role role =
      config_.tie_word_embeddings ? Role::kEmbedTokens : Role::kLmHead;
  at::Tensor& into = prices_.globals[role];
  into = into.defined() ? into + sum : sum;
}

void RowPriceObserver::on_embedding_gradient(
    const at::Tensor& ids, const at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  const at::Tensor sizes = gradient.to(at::kFloat).square().mean(1);
  at::Tensor& into = prices_.globals[Role::kEmbedTokens];
  if (!into.defined()) {
    into = at::zeros(
        {config_.vocab_size}, at::dtype(at::kFloat).device(gradient.device()));
  }
  into.index_add_(0, ids.to(into.device()), sizes);
}

artifact::RowPrices RowPriceObserver::prices(std::int64_t tokens) const {
  const at::NoGradGuard no_grad;
  artifact::RowPrices result = prices_;
  result.tokens = tokens;
  const double share =
      1.0 / static_cast<double>(std::max<std::int64_t>(tokens, 1));
  for (auto& [role, values] : result.globals) {
    values = (values * (0.5 * share)).cpu();
  }
  for (artifact::RolePrices& layer : result.layers) {
    for (auto& [role, values] : layer) {
      values = model::is_expert_role(role) ? values : values * share;
      values = values.to(at::kFloat).contiguous();
    }
  }
  return result;
}

}  // namespace fettle::analyze
