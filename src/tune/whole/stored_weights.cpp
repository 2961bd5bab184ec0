// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/stored_weights.h"

#include <algorithm>
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
      globals_{GlobalGradients({}, reader.config())},
      layers_(reader.config().layers.size()),
      ages_(at::zeros(
          {static_cast<std::int64_t>(options_.weights.size())}, at::kLong)) {
  std::vector<model::WeightId> globals;
  std::vector<std::vector<model::WeightId>> by_layer(layers_.size());
  for (const auto& id : options_.weights) {
    (id.layer < 0 ? globals : by_layer[id.layer]).push_back(id);
  }
  std::size_t first = globals.size();
  globals_.gradients = GlobalGradients(std::move(globals), reader.config());
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
  globals_.gradients.clear();
  globals_.norm_squared = 0.0;
}

bool StoredWeights::trains(std::int64_t layer) const {
  return !layers_[layer].gradients.ids().empty();
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
    copy_to(own.first + i, model::weight_view(weights, ids[i]));
  }
}

void StoredWeights::copy_to(std::size_t place, const at::Tensor& weight) const {
  store_->read(place, [&](std::int64_t first, const at::Tensor& value) {
    weight.narrow(0, first, value.size(0)).copy_(value);
  });
}

void StoredWeights::patch_globals(model::GlobalWeights& weights) const {
  if (!begun_) return;
  const at::NoGradGuard no_grad;
  const auto& ids = globals_.gradients.ids();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    copy_to(i, model::weight_view(weights, ids[i]));
  }
}

bool StoredWeights::trains_embeddings() const {
  return globals_.gradients.has(model::Role::kEmbedTokens);
}

std::int64_t StoredWeights::trained_globals() const {
  std::int64_t total = 0;
  for (const model::WeightId& id : globals_.gradients.ids()) {
    total += model::weight_numel(reader_.config(), id);
  }
  return total;
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
  const double scale =
      clip_scale(options_.clip_norm, std::sqrt(layer.norm_squared));
  for (std::size_t i = 0; i < layer.gradients.ids().size(); ++i) {
    const at::Tensor& packed = layer.gradients[i];
    if (!packed.defined()) continue;  // no token chose the expert
    const bool down = model::is_down_role(layer.gradients.ids()[i].role);
    const at::Tensor stored = down ? packed.t() : packed;
    update_weight(layer.first + i, scale, [&](const RowPiece& rows) {
      return stored.narrow(0, rows.first, rows.count);
    });
  }
}

void StoredWeights::update_weight(
    std::size_t place, double scale, const Gradient& gradient) {
  const at::NoGradGuard no_grad;
  at::Tensor age = ages_.narrow(0, static_cast<std::int64_t>(place), 1);
  const auto change = [&](const RowPiece& rows, WeightStore::Record& record) {
    at::Tensor slope = gradient(rows).cpu().contiguous().view({1, -1});
    if (scale < 1.0) slope = slope.mul(scale);
    AdamWState state{
        record.first.view({1, -1}), record.second.view({1, -1}), age.clone()};
    at::Tensor values = record.value.view({1, -1});
    adamw_step(options_.adamw, learning_rate(step_), slope, values, state);
  };
  store_->update(place, change);
  age.add_(1);
}

bool StoredWeights::wants_global_gradients() const {
  return !globals_.gradients.ids().empty();
}

void StoredWeights::on_head_gradient(const sweep::HeadGradView& view) {
  globals_.gradients.on_head_gradient(view);
}

// A tied head's gradient waits for that of the embeddings.
void StoredWeights::end_head() {
  update_globals_of({model::Role::kFinalNorm, model::Role::kLmHead});
  const bool tied = reader_.config().tie_word_embeddings;
  if (!tied || !trains_embeddings()) globals_.gradients.clear();
}

void StoredWeights::on_embedding_gradient(
    const at::Tensor& ids, const at::Tensor& gradient) {
  globals_.gradients.on_embedding_gradient(ids, gradient);
}

void StoredWeights::end_embeddings() {
  update_globals_of({model::Role::kEmbedTokens});
  globals_.gradients.clear();
}

void StoredWeights::update_globals_of(const std::vector<model::Role>& roles) {
  const GlobalGradients& gradients = globals_.gradients;
  std::vector<std::size_t> places;
  double norm_squared = 0.0;
  for (std::size_t i = 0; i < gradients.ids().size(); ++i) {
    if (!std::ranges::count(roles, gradients.ids()[i].role)) continue;
    places.push_back(i);
    norm_squared += gradients.norm_squared(i);
  }
  globals_.norm_squared += norm_squared;
  if (!std::isfinite(norm_squared)) return;  // the trainer stops
  const double scale = clip_scale(options_.clip_norm, std::sqrt(norm_squared));
  for (const std::size_t i : places) {
    update_weight(i, scale, [&](const RowPiece& rows) {
      return gradients.rows(i, rows);
    });
  }
}

double StoredWeights::global_gradient_norm_squared() const {
  return globals_.norm_squared;
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
