// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/whole_weights.h"

#include "tune/part/state_tensors.h"
#include "tune/whole/weight_delta.h"

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
    WholeOptions options,
    Choose choose)
    : WholePart(reader, std::move(options)),
      device_(device),
      choose_(std::move(choose)) {
  make_masters();
}

void WholeWeights::make_masters() {
  masters_.clear();
  for (const model::WeightId& id : ids()) masters_.push_back(master_of(id));
}

WholeWeights::Master WholeWeights::master_of(const model::WeightId& id) const {
  const auto shape = model::weight_shape(reader().config(), id);
  at::Tensor value = at::empty(shape, at::device(device_).dtype(at::kFloat));
  reader().read_rows(
      id, piece_rows(shape), [&](std::int64_t first, const at::Tensor& rows) {
        value.narrow(0, first, rows.size(0)).copy_(rows);
      });
  if (model::is_down_role(id.role)) value = value.t().contiguous();
  return {value, owners().moments(id.layer, as_rows(value))};
}

void WholeWeights::prepare(const PrepareInput& input) {
  if (input.step == 0 && choose_) {
    own(choose_(input));
    make_masters();
  }
  WholePart::prepare(input);
}

at::Tensor WholeWeights::stored(std::size_t place) const {
  const at::Tensor& value = masters_[place].value;
  return model::is_down_role(ids()[place].role) ? value.t() : value;
}

void WholeWeights::put(std::size_t place, const at::Tensor& weight) const {
  weight.copy_(stored(place));
}

void WholeWeights::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (!trains(layer)) return;
  WholePart::end_layer(pass, layer, weights);
  WeightGradients& own = gradients(layer);
  for (std::size_t i = 0; i < own.ids().size(); ++i) {
    if (!own[i].defined()) continue;
    owners().leave(layer, own[i]);
    if (owners().owns(layer)) own[i] = own[i].to(device_);
  }
}

void WholeWeights::end_head() { leave_globals(); }

void WholeWeights::end_embeddings() { leave_globals(); }

void WholeWeights::leave_globals() {
  if (!owners().owns(StateOwners::kGlobals)) globals().clear();
}

double WholeWeights::gradient_norm_squared(std::int64_t layer) const {
  return gradients(layer).norm_squared();
}

double WholeWeights::global_gradient_norm_squared() const {
  double total = 0.0;
  for (std::size_t i = 0; i < globals().ids().size(); ++i) {
    total += globals().norm_squared(i);
  }
  return total;
}

void WholeWeights::step(
    std::size_t place, const UpdateInput& input, const Gradient& gradient) {
  Master& master = masters_[place];
  if (master.adam.first.is_meta()) {
    master.adam.age.add_(1);
    return;
  }
  const AdamWOptions adamw = adamw_of(place);
  const at::Tensor values = as_rows(master.value);
  for (const auto& [first, count] : row_pieces(values.sizes())) {
    at::Tensor part = values.narrow(0, first, count);
    AdamWState state{
        master.adam.first.narrow(0, first, count),
        master.adam.second.narrow(0, first, count),
        master.adam.age.narrow(0, first, count)};
    at::Tensor slope = gradient({first, count}).to(device_);
    if (input.gradient_scale != 1.0) slope = slope.mul(input.gradient_scale);
    adamw_step(adamw, learning_rate(input.step), slope, part, state);
  }
}

void WholeWeights::update(std::int64_t layer, const UpdateInput& input) {
  if (!trains(layer)) return;
  WeightGradients& own = gradients(layer);
  std::vector<at::Tensor> changed;
  for (std::size_t i = 0; i < own.ids().size(); ++i) {
    // No token chose the expert: nothing to learn, and no decay either.
    if (!own[i].defined()) continue;
    const at::Tensor whole = as_rows(own[i]);
    step(first_of(layer) + i, input, [&](const RowPiece& rows) {
      return whole.narrow(0, rows.first, rows.count);
    });
    changed.push_back(masters_[first_of(layer) + i].value);
  }
  own.clear();
  owners().share(layer, changed);
}

void WholeWeights::update_globals(const UpdateInput& input) {
  if (!training()) return;
  std::vector<at::Tensor> changed;
  for (std::size_t i = 0; i < globals().ids().size(); ++i) {
    const at::Tensor& value = masters_[i].value;
    step(i, input, [&](const RowPiece& rows) {
      return value.dim() > 1
                 ? globals().rows(i, rows)
                 : globals().rows(i, {0, value.size(0)}).view({1, -1});
    });
    changed.push_back(value);
  }
  globals().clear();
  owners().share(StateOwners::kGlobals, changed);
}

void WholeWeights::save_state(artifact::TensorMap& into) const {
  for (std::size_t i = 0; i < masters_.size(); ++i) {
    const std::string key = weight_key(name(), ids()[i]);
    const auto& [value, adam] = masters_[i];
    into[key + ".value"] = value;
    into[key + ".first"] = adam.first;
    into[key + ".second"] = adam.second;
    into[key + ".age"] = adam.age.to(at::kInt);
  }
}

void WholeWeights::load_state(const artifact::TensorMap& from) {
  if (choose_) {
    own(stored_weights(from, name(), ".value", reader().config()));
    make_masters();
  }
  for (std::size_t i = 0; i < masters_.size(); ++i) {
    const std::string key = weight_key(name(), ids()[i]);
    const auto take = [&](const char* what, const at::Tensor& like) {
      return take_tensor(from, key + what, {at::kFloat, like.sizes().vec()})
          .to(device_);
    };
    auto& [value, adam] = masters_[i];
    if (owners().owns(ids()[i].layer)) {
      adam.first = take(".first", adam.first);
      adam.second = take(".second", adam.second);
    }
    adam.age =
        take_tensor(from, key + ".age", {at::kInt, adam.age.sizes().vec()})
            .to(at::kLong);
    value = take(".value", value);
  }
}

void WholeWeights::save_adapter(artifact::TensorMap& into) const {
  for (std::size_t i = 0; i < masters_.size(); ++i) {
    if (masters_[i].adam.age.max().item<std::int64_t>() == 0) continue;
    into[weight_key(name(), ids()[i])] = stored(i).contiguous();
  }
}

}  // namespace fettle::tune
