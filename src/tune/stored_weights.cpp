// SPDX-License-Identifier: Apache-2.0
#include "tune/stored_weights.h"

#include <cmath>

#include "model/weight_view.h"
#include "tune/clipping.h"
#include "tune/state_tensors.h"

namespace fettle::tune {

StoredWeights::StoredWeights(
    const model::ModelReader& reader, StoredWeightsOptions options)
    : reader_(reader),
      options_(std::move(options)),
      store_(std::make_unique<WeightStore>(
          options_.folder, options_.name, reader.config(), options_.weights)),
      layers_(reader.config().layers.size()),
      ages_(at::zeros(
          {static_cast<std::int64_t>(options_.weights.size())}, at::kLong)) {
  std::vector<std::vector<model::WeightId>> by_layer(layers_.size());
  for (const auto& id : options_.weights) by_layer[id.layer].push_back(id);
  std::size_t first = 0;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    layers_[l].first = first;
    first += by_layer[l].size();
    layers_[l].gradients = WeightGradients(std::move(by_layer[l]));
  }
}

void StoredWeights::prepare(const PrepareInput& input) {
  if (!begun_) store_->create(reader_);
  begun_ = true;
  step_ = input.step;
}

bool StoredWeights::trains(std::int64_t layer) const {
  return !layers_[layer].gradients.ids().empty();
}

std::int64_t StoredWeights::trainable_weights() const {
  std::int64_t total = 0;
  for (std::int64_t l = 0; l < std::ssize(layers_); ++l) {
    total += trained_weights(l);
  }
  return total;
}

std::int64_t StoredWeights::trained_weights(std::int64_t layer) const {
  std::int64_t total = 0;
  for (const model::WeightId& id : layers_[layer].gradients.ids()) {
    total += model::weight_numel(reader_.config(), id);
  }
  return total;
}

void StoredWeights::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  if (!begun_) return;  // the model's own values
  const at::NoGradGuard no_grad;
  const Layer& own = layers_[layer];
  const auto& ids = own.gradients.ids();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    model::weight_view(weights, ids[i]).copy_(store_->value(own.first + i));
  }
}

void StoredWeights::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (!trains(layer)) return;
  Layer& own = layers_[layer];
  own.gradients.begin_layer(pass, weights);
  // Read behind the layer's backward pass.
  if (pass == sweep::Pass::kBackward) {
    store_->will_need(own.first, own.gradients.ids().size());
  }
}

void StoredWeights::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  if (trains(layer)) layers_[layer].gradients.on_expert_gradient(view);
}

void StoredWeights::on_router_gradient(
    std::int64_t layer, const at::Tensor& x, const at::Tensor& d_logits) {
  if (trains(layer)) layers_[layer].gradients.on_router_gradient(x, d_logits);
}

void StoredWeights::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward || !trains(layer)) return;
  Layer& own = layers_[layer];
  own.gradients.end_layer(pass, weights);
  own.norm_squared = own.gradients.norm_squared();
  // The trainer sees a norm that is not finite and stops.
  if (std::isfinite(own.norm_squared)) update_layer(own);
  own.gradients.clear();
}

void StoredWeights::update_layer(Layer& layer) {
  const at::NoGradGuard no_grad;
  const double scale =
      clip_scale(options_.clip_norm, std::sqrt(layer.norm_squared));
  for (std::size_t i = 0; i < layer.gradients.ids().size(); ++i) {
    const at::Tensor& packed = layer.gradients[i];
    if (!packed.defined()) continue;  // no token chose the expert
    const std::size_t place = layer.first + i;
    const bool down = model::is_down_role(layer.gradients.ids()[i].role);
    at::Tensor gradient =
        (down ? packed.t() : packed).cpu().contiguous().view({1, -1});
    if (scale < 1.0) gradient.mul_(scale);
    WeightStore::Record record = store_->read(place);
    AdamWState state{
        record.first.view({1, -1}),
        record.second.view({1, -1}),
        ages_.narrow(0, static_cast<std::int64_t>(place), 1)};
    at::Tensor values = record.value.view({1, -1});
    adamw_step(options_.adamw, learning_rate(step_), gradient, values, state);
    store_->write(place, record);
  }
}

double StoredWeights::gradient_norm_squared(std::int64_t layer) const {
  return layers_[layer].norm_squared;
}

// The sweep has done it.
void StoredWeights::update(std::int64_t, const UpdateInput&) {}

double StoredWeights::learning_rate(std::int64_t step) const {
  return tune::learning_rate(options_.schedule, step);
}

void StoredWeights::save_state(artifact::TensorMap& into) const {
  if (!begun_) return;
  const std::string part(name());
  into[part + ".generation"] = at::scalar_tensor(store_->save(), at::kInt);
  into[part + ".ages"] = ages_.to(at::kInt);
}

void StoredWeights::load_state(const artifact::TensorMap& from) {
  const std::string part(name());
  if (!from.contains(part + ".generation")) return;  // saved before any step
  const auto generation =
      take_tensor(from, part + ".generation", {at::kInt, {}}).item<int>();
  ages_ = take_tensor(from, part + ".ages", {at::kInt, ages_.sizes().vec()})
              .to(at::kLong);
  store_->open(generation == 0 ? 0 : 1);
  begun_ = true;
}

// All of it lies in a file of its own.
void StoredWeights::save_adapter(artifact::TensorMap&) const {}

std::optional<std::string> StoredWeights::save_large(
    const std::filesystem::path& folder) const {
  const std::string file = options_.name + ".safetensors";
  store_->write_values(folder / file);
  return file;
}

}  // namespace fettle::tune
