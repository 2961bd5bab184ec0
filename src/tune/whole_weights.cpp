// SPDX-License-Identifier: Apache-2.0
#include "tune/whole_weights.h"

#include "model/weight_view.h"
#include "tune/state_tensors.h"
#include "tune/weight_delta.h"

namespace fettle::tune {

namespace {

// AdamW counts updates by rows; a vector is one row.
at::Tensor as_rows(const at::Tensor& values) {
  return values.dim() < 2 ? values.view({1, -1}) : values;
}

}  // namespace

WeightIds router_weights(const model::ModelConfig& config) {
  WeightIds ids;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    if (config.layers[l].sparse) ids.push_back({model::Role::kRouter, l});
  }
  return ids;
}

WholeWeights::WholeWeights(
    const model::ModelReader& reader,
    at::Device device,
    WholeWeightsOptions options)
    : reader_(reader), device_(device), options_(std::move(options)) {
  own(options_.weights);
}

WholeWeights::Master WholeWeights::master_of(const model::WeightId& id) const {
  at::Tensor value = reader_.read(id).to(device_, at::kFloat);
  if (model::is_down_role(id.role)) value = value.t();
  // A copy: the reader may hand out what it holds.
  value = value.clone(at::MemoryFormat::Contiguous);
  return {value, AdamWState::zeros_like(as_rows(value))};
}

void WholeWeights::own(const WeightIds& ids) {
  std::vector<WeightIds> by_layer(reader_.config().layers.size());
  has_experts_ = false;
  for (const model::WeightId& id : ids) {
    by_layer[id.layer].push_back(id);
    has_experts_ = has_experts_ || model::is_expert_role(id.role);
  }
  layers_.clear();
  for (const WeightIds& of_layer : by_layer) {
    Layer& layer = layers_.emplace_back();
    for (const auto& id : of_layer) layer.masters.push_back(master_of(id));
    layer.gradients = WeightGradients(of_layer);
  }
}

void WholeWeights::prepare(const PrepareInput& input) {
  if (input.step == 0 && options_.choose) own(options_.choose(input));
  training_ = input.step >= options_.frozen_steps;
}

bool WholeWeights::trains(std::int64_t layer) const {
  return training_ && !layers_[layer].masters.empty();
}

std::int64_t WholeWeights::trainable_weights() const {
  std::int64_t total = 0;
  for (std::int64_t l = 0; l < std::ssize(layers_); ++l) {
    total += trained_weights(l);
  }
  return total;
}

std::int64_t WholeWeights::trained_weights(std::int64_t layer) const {
  std::int64_t total = 0;
  for (const Master& master : layers_[layer].masters) {
    total += master.value.numel();
  }
  return total;
}

void WholeWeights::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const at::NoGradGuard no_grad;
  const Layer& own = layers_[layer];
  for (std::size_t i = 0; i < own.masters.size(); ++i) {
    packed_view(weights, own.gradients.ids()[i]).copy_(own.masters[i].value);
  }
}

void WholeWeights::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (trains(layer)) layers_[layer].gradients.begin_layer(pass, weights);
}

void WholeWeights::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  if (trains(layer)) layers_[layer].gradients.on_expert_gradient(view);
}

void WholeWeights::on_router_gradient(
    std::int64_t layer, const at::Tensor& x, const at::Tensor& d_logits) {
  if (trains(layer)) layers_[layer].gradients.on_router_gradient(x, d_logits);
}

void WholeWeights::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (trains(layer)) layers_[layer].gradients.end_layer(pass, weights);
}

double WholeWeights::gradient_norm_squared(std::int64_t layer) const {
  return layers_[layer].gradients.norm_squared();
}

void WholeWeights::update(std::int64_t layer, const UpdateInput& input) {
  Layer& own = layers_[layer];
  if (!trains(layer)) return;
  for (std::size_t i = 0; i < own.masters.size(); ++i) {
    at::Tensor& gradient = own.gradients[i];
    // No token chose the expert: nothing to learn, and no decay either.
    if (!gradient.defined()) continue;
    if (input.gradient_scale != 1.0) gradient.mul_(input.gradient_scale);
    at::Tensor values = as_rows(own.masters[i].value);
    adamw_step(
        options_.adamw,
        learning_rate(input.step),
        as_rows(gradient),
        values,
        own.masters[i].adam);
  }
  own.gradients.clear();
}

double WholeWeights::learning_rate(std::int64_t step) const {
  if (step < options_.frozen_steps) return 0.0;
  return tune::learning_rate(options_.schedule, step - options_.frozen_steps);
}

void WholeWeights::save_state(artifact::TensorMap& into) const {
  for (const Layer& layer : layers_) {
    for (std::size_t i = 0; i < layer.masters.size(); ++i) {
      const std::string key = weight_key(name(), layer.gradients.ids()[i]);
      const Master& master = layer.masters[i];
      into[key + ".value"] = master.value;
      into[key + ".first"] = master.adam.first;
      into[key + ".second"] = master.adam.second;
      into[key + ".age"] = master.adam.age.to(at::kInt);
    }
  }
}

void WholeWeights::load_state(const artifact::TensorMap& from) {
  if (options_.choose) {
    own(stored_weights(from, name(), ".value", reader_.config()));
  }
  for (Layer& layer : layers_) {
    for (std::size_t i = 0; i < layer.masters.size(); ++i) {
      const std::string key = weight_key(name(), layer.gradients.ids()[i]);
      Master& master = layer.masters[i];
      const auto take = [&](const char* what, const at::Tensor& like) {
        return take_tensor(from, key + what, {at::kFloat, like.sizes().vec()})
            .to(device_);
      };
      master.adam.first = take(".first", master.adam.first);
      master.adam.second = take(".second", master.adam.second);
      master.adam.age =
          take_tensor(
              from, key + ".age", {at::kInt, master.adam.age.sizes().vec()})
              .to(at::kLong);
      master.value = take(".value", master.value);
    }
  }
}

void WholeWeights::save_adapter(artifact::TensorMap& into) const {
  for (const Layer& layer : layers_) {
    for (std::size_t i = 0; i < layer.masters.size(); ++i) {
      const Master& master = layer.masters[i];
      if (master.adam.age.max().item<std::int64_t>() == 0) continue;
      const model::WeightId& id = layer.gradients.ids()[i];
      into[weight_key(name(), id)] = model::is_down_role(id.role)
                                         ? master.value.t().contiguous()
                                         : master.value;
    }
  }
}

}  // namespace fettle::tune
