// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/stored_weights.h"

#include <algorithm>
#include <cmath>

#include "tune/part/clipping.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

StoredWeights::StoredWeights(
    const model::ModelReader& reader, StoredWeightsOptions options)
    : WholePart(reader, std::move(options.whole)),
      clip_norm_(options.clip_norm),
      store_(std::make_unique<WeightStore>(
          std::move(options.folder),
          std::string(name()),
          reader.config(),
          ids())),
      norms_squared_(reader.config().layers.size()),
      ages_(at::zeros({std::ssize(ids())}, at::kLong)) {}

void StoredWeights::prepare(const PrepareInput& input) {
  WholePart::prepare(input);
  if (!begun_) store_->create(reader());
  begun_ = true;
  step_ = input.step;
  global_norm_squared_ = 0.0;
}

void StoredWeights::put(std::size_t place, const at::Tensor& weight) const {
  if (!begun_) return;  // the model's own values
  store_->read(place, [&](std::int64_t first, const at::Tensor& value) {
    weight.narrow(0, first, value.size(0)).copy_(value);
  });
}

void StoredWeights::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  WholePart::begin_layer(pass, layer, weights);
  // Read behind the layer's backward pass.
  if (pass == sweep::Pass::kBackward) {
    store_->will_need(first_of(layer), gradients(layer).ids().size());
  }
}

void StoredWeights::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward || !trains(layer)) return;
  WholePart::end_layer(pass, layer, weights);
  norms_squared_[layer] = gradients(layer).norm_squared();
  // The trainer sees a norm that is not finite, and counts the step as skipped:
  // this layer and those below stay, those above have learned.
  if (std::isfinite(norms_squared_[layer])) update_layer(layer);
  gradients(layer).clear();
}

void StoredWeights::update_layer(std::int64_t layer) {
  const WeightGradients& own = gradients(layer);
  const double scale = clip_scale(clip_norm_, std::sqrt(norms_squared_[layer]));
  const std::size_t first = first_of(layer);
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < own.ids().size(); ++i) {
    if (own[i].defined()) places.push_back(first + i);  // a token chose it
  }
  update_weights(places, scale, [&](std::size_t place, const RowPiece& rows) {
    const std::size_t i = place - first;
    const at::Tensor& packed = own[i];
    const bool down = model::is_down_role(own.ids()[i].role);
    return (down ? packed.t() : packed).narrow(0, rows.first, rows.count);
  });
}

void StoredWeights::update_weights(
    const std::vector<std::size_t>& places,
    double scale,
    const Gradient& gradient) {
  const auto age = [&](std::size_t place) {
    return ages_.narrow(0, static_cast<std::int64_t>(place), 1);
  };
  const auto change = [&](std::size_t place,
                          const RowPiece& rows,
                          WeightStore::Record& record) {
    const at::NoGradGuard no_grad;
    at::Tensor slope = gradient(place, rows).cpu().contiguous().view({1, -1});
    if (scale < 1.0) slope = slope.mul(scale);
    AdamWState state{
        record.first.view({1, -1}),
        record.second.view({1, -1}),
        age(place).clone()};
    at::Tensor values = record.value.view({1, -1});
    adamw_step(adamw_of(place), learning_rate(step_), slope, values, state);
  };
  store_->update(places, change);
  for (const std::size_t place : places) age(place).add_(1);
}

// A tied head's gradient waits for that of the embeddings.
void StoredWeights::end_head() {
  update_globals_of({model::Role::kFinalNorm, model::Role::kLmHead});
  const bool tied = reader().config().tie_word_embeddings;
  if (!tied || !trains_embeddings()) globals().clear();
}

void StoredWeights::end_embeddings() {
  update_globals_of({model::Role::kEmbedTokens});
  globals().clear();
}

void StoredWeights::update_globals_of(const std::vector<model::Role>& roles) {
  std::vector<std::size_t> places;
  double norm_squared = 0.0;
  for (std::size_t i = 0; i < globals().ids().size(); ++i) {
    if (!std::ranges::count(roles, globals().ids()[i].role)) continue;
    places.push_back(i);
    norm_squared += globals().norm_squared(i);
  }
  global_norm_squared_ += norm_squared;
  if (!std::isfinite(norm_squared)) return;  // the step is skipped
  const double scale = clip_scale(clip_norm_, std::sqrt(norm_squared));
  update_weights(places, scale, [&](std::size_t i, const RowPiece& rows) {
    return globals().rows(i, rows);
  });
}

double StoredWeights::global_gradient_norm_squared() const {
  return global_norm_squared_;
}

double StoredWeights::gradient_norm_squared(std::int64_t layer) const {
  return norms_squared_[layer];
}

// The sweep has done it.
void StoredWeights::update(std::int64_t, const UpdateInput&) {}

void StoredWeights::save_state(artifact::TensorMap& into) const {
  if (!begun_) return;
  const std::string part(name());
  into[part + ".generation"] = at::scalar_tensor(store_->save(), at::kInt);
  into[part + ".ages"] = ages_.to(at::kInt);
}

// None in a state that was saved before any step.
std::optional<int> StoredWeights::generation_of(
    const artifact::TensorMap& state) const {
  const std::string key = std::string(name()) + ".generation";
  if (!state.contains(key)) return std::nullopt;
  return take_tensor(state, key, {at::kInt, {}}).item<int>() == 0 ? 0 : 1;
}

std::vector<std::string> StoredWeights::state_files(
    const artifact::TensorMap& state) const {
  const auto generation = generation_of(state);
  if (!generation) return {};
  return {store_->files()[static_cast<std::size_t>(*generation)]};
}

void StoredWeights::load_state(const artifact::TensorMap& from) {
  const std::string part(name());
  const auto generation = generation_of(from);
  if (!generation) return;
  ages_ = take_tensor(from, part + ".ages", {at::kInt, ages_.sizes().vec()})
              .to(at::kLong);
  store_->open(*generation);
  begun_ = true;
}

// All of it lies in a file of its own.
void StoredWeights::save_adapter(artifact::TensorMap&) const {}

std::optional<std::string> StoredWeights::save_large(
    const std::filesystem::path& folder) const {
  const std::string file = std::string(name()) + ".safetensors";
  store_->write_values(folder / file);
  return file;
}

}  // namespace fettle::tune
