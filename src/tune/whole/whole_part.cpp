// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/whole_part.h"

#include "model/weights/side_by_side.h"
#include "model/weights/weight_view.h"

namespace fettle::tune {

namespace {

// Has `visit` see sums as those of a layer's gradient.
sweep::SumVisitor for_owner(
    const StateOwners& owners,
    std::int64_t layer,
    const sweep::SumVisitor& visit) {
  return [&owners, layer, &visit](at::Tensor& sum, ranks::Reduction how) {
    const bool gradient = how.kind == ranks::Reduction::kSum;
    visit(sum, gradient ? owners.sum_of(layer) : how);
  };
}

}  // namespace

WholePart::WholePart(const model::ModelReader& reader, WholeOptions options)
    : reader_(reader),
      options_(std::move(options)),
      globals_({}, reader.config()) {
  own(options_.weights);
}

void WholePart::own(const WeightIds& weights) {
  WeightIds globals;
  std::vector<WeightIds> by_layer(reader_.config().layers.size());
  has_experts_ = false;
  for (const model::WeightId& id : weights) {
    (id.layer < 0 ? globals : by_layer[id.layer]).push_back(id);
    has_experts_ = has_experts_ || model::is_expert_role(id.role);
  }
  ids_ = globals;
  globals_ = GlobalGradients(std::move(globals), reader_.config());
  layers_.clear();
  for (WeightIds& of_layer : by_layer) {
    const std::size_t first = ids_.size();
    ids_.insert(ids_.end(), of_layer.begin(), of_layer.end());
    layers_.push_back({first, WeightGradients(std::move(of_layer))});
  }
}

void WholePart::prepare(const PrepareInput& input) {
  training_ = input.step >= options_.frozen_steps;
  globals_.clear();
}

bool WholePart::trains(std::int64_t layer) const {
  return training_ && !gradients(layer).ids().empty();
}

AdamWOptions WholePart::adamw_of(std::size_t place) const {
  const model::WeightId& id = ids_[place];
  AdamWOptions adamw = options_.adamw;
  const bool scale = id.role == model::Role::kRouterNorm ||
                     id.role == model::Role::kExpertScale ||
                     id.role == model::Role::kSinks;
  const bool vector =
      !scale && model::weight_shape(reader_.config(), id).size() < 2;
  if (vector || id.role == model::Role::kExpertConstant) {
    adamw.weight_decay = 0.0;
  }
  return adamw;
}

std::int64_t WholePart::numel(const WeightIds& ids) const {
  std::int64_t total = 0;
  for (const model::WeightId& id : ids) {
    total += model::weight_numel(reader_.config(), id);
  }
  return total;
}

std::int64_t WholePart::trained_weights(std::int64_t layer) const {
  return numel(gradients(layer).ids());
}

void WholePart::patch(std::int64_t layer, model::LayerWeights& weights) const {
  const at::NoGradGuard no_grad;
  const WeightIds& ids = gradients(layer).ids();
  if (ids.empty()) return;
  // Two at a time: one is read while the other is copied.
  model::run_side_by_side(
      std::ssize(ids),
      model::weight_view(weights, ids.front()).is_cpu(),
      [&](std::int64_t i) {
        put(first_of(layer) + static_cast<std::size_t>(i),
            model::weight_view(weights, ids[i]));
      },
      /*most_threads=*/2);
}

bool WholePart::trains_embeddings() const {
  return training_ && globals_.has(model::Role::kEmbedTokens);
}

std::int64_t WholePart::trained_globals() const {
  return numel(globals_.ids());
}

void WholePart::patch_globals(model::GlobalWeights& weights) const {
  const at::NoGradGuard no_grad;
  std::size_t place = 0;
  for (const model::WeightId& id : globals_.ids()) {
    put(place++, model::weight_view(weights, id));
  }
}

double WholePart::learning_rate(std::int64_t step) const {
  if (step < options_.frozen_steps) return 0.0;
  return tune::learning_rate(options_.schedule, step - options_.frozen_steps);
}

std::int64_t WholePart::owner(std::int64_t layer) const {
  return owners().owner(layer);
}

void WholePart::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (trains(layer)) gradients(layer).begin_layer(pass, weights);
}

void WholePart::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  if (trains(layer)) gradients(layer).on_expert_gradient(view);
}

void WholePart::on_router_gradient(
    std::int64_t layer, const at::Tensor& x, const at::Tensor& d_logits) {
  if (trains(layer)) gradients(layer).on_router_gradient(x, d_logits);
}

void WholePart::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  if (pass != sweep::Pass::kBackward || !trains(layer)) return;
  gradients(layer).for_each_sum(for_owner(owners(), layer, visit));
}

void WholePart::for_each_head_sum(
    at::Device device, const sweep::SumVisitor& visit) {
  globals_.for_each_head_sum(
      device, for_owner(owners(), StateOwners::kGlobals, visit));
}

void WholePart::for_each_embedding_sum(const sweep::SumVisitor& visit) {
  globals_.for_each_embedding_sum(
      for_owner(owners(), StateOwners::kGlobals, visit));
}

void WholePart::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (trains(layer)) gradients(layer).end_layer(pass);
}

bool WholePart::wants_global_gradients() const {
  return training_ && !globals_.ids().empty();
}

void WholePart::on_head_gradient(const sweep::HeadGradView& view) {
  globals_.on_head_gradient(view);
}

void WholePart::on_embedding_gradient(
    const at::Tensor& ids, const at::Tensor& gradient) {
  globals_.on_embedding_gradient(ids, gradient);
}

}  // namespace fettle::tune
