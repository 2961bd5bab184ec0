// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/whole_weights.h"

#include "model/weight_view.h"
#include "tune/adapter/weight_delta.h"
#include "tune/state_tensors.h"

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
    : reader_(reader),
      device_(device),
      options_(std::move(options)),
      globals_{{}, GlobalGradients({}, reader.config())} {
  own(options_.weights);
}

WholeWeights::Master WholeWeights::master_of(const model::WeightId& id) const {
  const auto shape = model::weight_shape(reader_.config(), id);
  at::Tensor value = at::empty(shape, at::device(device_).dtype(at::kFloat));
  reader_.read_rows(
      id, piece_rows(shape), [&](std::int64_t first, const at::Tensor& rows) {
        value.narrow(0, first, rows.size(0)).copy_(rows);
      });
  if (model::is_down_role(id.role)) value = value.t().contiguous();
  return {value, AdamWState::zeros_like(as_rows(value))};
}

void WholeWeights::own(const WeightIds& ids) {
  WeightIds globals;
  std::vector<WeightIds> by_layer(reader_.config().layers.size());
  has_experts_ = false;
  for (const model::WeightId& id : ids) {
    (id.layer < 0 ? globals : by_layer[id.layer]).push_back(id);
    has_experts_ = has_experts_ || model::is_expert_role(id.role);
  }
  globals_ = {{}, GlobalGradients(globals, reader_.config())};
  for (const auto& id : globals) globals_.masters.push_back(master_of(id));
  layers_.clear();
  for (const WeightIds& of_layer : by_layer) {
    Layer& layer = layers_.emplace_back();
    for (const auto& id : of_layer) layer.masters.push_back(master_of(id));
    layer.gradients = WeightGradients(of_layer);
  }
}

template <typename Self, typename Visit>
void WholeWeights::for_each_master(Self& self, const Visit& visit) {
  const auto each = [&](auto& of) {
    for (std::size_t i = 0; i < of.masters.size(); ++i) {
      visit(of.gradients.ids()[i], of.masters[i]);
    }
  };
  each(self.globals_);
  for (auto& layer : self.layers_) each(layer);
}

void WholeWeights::prepare(const PrepareInput& input) {
  if (input.step == 0 && options_.choose) own(options_.choose(input));
  training_ = input.step >= options_.frozen_steps;
  globals_.gradients.clear();
}

bool WholeWeights::trains(std::int64_t layer) const {
  return training_ && !layers_[layer].masters.empty();
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

bool WholeWeights::trains_embeddings() const {
  return training_ && globals_.gradients.has(model::Role::kEmbedTokens);
}

std::int64_t WholeWeights::trained_globals() const {
  std::int64_t total = 0;
  for (const Master& master : globals_.masters) total += master.value.numel();
  return total;
}

void WholeWeights::patch_globals(model::GlobalWeights& weights) const {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < globals_.masters.size(); ++i) {
    model::weight_view(weights, globals_.gradients.ids()[i])
        .copy_(globals_.masters[i].value);
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
  if (!trains(layer)) return;
  WeightGradients& gradients = layers_[layer].gradients;
  gradients.end_layer(pass, weights);
  for (std::size_t i = 0; i < gradients.ids().size(); ++i) {
    if (gradients[i].defined()) gradients[i] = gradients[i].to(device_);
  }
}

bool WholeWeights::wants_global_gradients() const {
  return training_ && !globals_.masters.empty();
}

void WholeWeights::on_head_gradient(const sweep::HeadGradView& view) {
  globals_.gradients.on_head_gradient(view);
}

void WholeWeights::on_embedding_gradient(
    const at::Tensor& ids, const at::Tensor& gradient) {
  globals_.gradients.on_embedding_gradient(ids, gradient);
}

double WholeWeights::gradient_norm_squared(std::int64_t layer) const {
  return layers_[layer].gradients.norm_squared();
}

double WholeWeights::global_gradient_norm_squared() const {
  double total = 0.0;
  for (std::size_t i = 0; i < globals_.masters.size(); ++i) {
    total += globals_.gradients.norm_squared(i);
  }
  return total;
}

void WholeWeights::step(
    Master& master, const UpdateInput& input, const Gradient& gradient) {
  const at::Tensor values = as_rows(master.value);
  for (const auto& [first, count] : row_pieces(values.sizes())) {
    at::Tensor part = values.narrow(0, first, count);
    AdamWState adam{
        master.adam.first.narrow(0, first, count),
        master.adam.second.narrow(0, first, count),
        master.adam.age.narrow(0, first, count)};
    at::Tensor slope = gradient({first, count}).to(device_);
    if (input.gradient_scale != 1.0) slope = slope.mul(input.gradient_scale);
    adamw_step(options_.adamw, learning_rate(input.step), slope, part, adam);
  }
}

void WholeWeights::update(std::int64_t layer, const UpdateInput& input) {
  Layer& own = layers_[layer];
  if (!trains(layer)) return;
  for (std::size_t i = 0; i < own.masters.size(); ++i) {
    // No token chose the expert: nothing to learn, and no decay either.
    if (!own.gradients[i].defined()) continue;
    const at::Tensor whole = as_rows(own.gradients[i]);
    step(own.masters[i], input, [&](const RowPiece& rows) {
      return whole.narrow(0, rows.first, rows.count);
    });
  }
  own.gradients.clear();
}

void WholeWeights::update_globals(const UpdateInput& input) {
  if (!training_) return;
  for (std::size_t i = 0; i < globals_.masters.size(); ++i) {
    const at::Tensor& value = globals_.masters[i].value;
    step(globals_.masters[i], input, [&](const RowPiece& rows) {
      return value.dim() > 1
                 ? globals_.gradients.rows(i, rows)
                 : globals_.gradients.rows(i, {0, value.size(0)}).view({1, -1});
    });
  }
  globals_.gradients.clear();
}

double WholeWeights::learning_rate(std::int64_t step) const {
  if (step < options_.frozen_steps) return 0.0;
  return tune::learning_rate(options_.schedule, step - options_.frozen_steps);
}

void WholeWeights::save_state(artifact::TensorMap& into) const {
  for_each_master(*this, [&](const model::WeightId& id, const Master& master) {
    const std::string key = weight_key(name(), id);
    into[key + ".value"] = master.value;
    into[key + ".first"] = master.adam.first;
    into[key + ".second"] = master.adam.second;
    into[key + ".age"] = master.adam.age.to(at::kInt);
  });
}

void WholeWeights::load_state(const artifact::TensorMap& from) {
  if (options_.choose) {
    own(stored_weights(from, name(), ".value", reader_.config()));
  }
  for_each_master(*this, [&](const model::WeightId& id, Master& master) {
    const std::string key = weight_key(name(), id);
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
  });
}

void WholeWeights::save_adapter(artifact::TensorMap& into) const {
  for_each_master(*this, [&](const model::WeightId& id, const Master& master) {
    if (master.adam.age.max().item<std::int64_t>() == 0) return;
    into[weight_key(name(), id)] = model::is_down_role(id.role)
                                       ? master.value.t().contiguous()
                                       : master.value;
  });
}

}  // namespace fettle::tune
