// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/weight_gradients.h"

#include "model/weights/weight_slot.h"
#include "model/weights/weight_view.h"
#include "tune/part/clipping.h"

namespace fettle::tune {

namespace {

bool by_autograd(const model::WeightId& id) {
  return !model::is_expert_role(id.role) && id.role != model::Role::kRouter;
}

void add_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor left = a.t();
  if (!sum.defined()) {
    sum = at::mm(left, b).to(at::kFloat);
  } else if (a.scalar_type() == at::kFloat) {
    sum.addmm_(left, b);
  } else {
    sum.add_(at::mm(left, b));
  }
}

}  // namespace

at::Tensor packed_view(
    const model::LayerWeights& weights, const model::WeightId& id) {
  const at::Tensor view = model::weight_view(weights, id);
  return model::is_down_role(id.role) ? view.t() : view;
}

WeightGradients::WeightGradients(std::vector<model::WeightId> ids)
    : ids_(std::move(ids)),
      gradients_(ids_.size()),
      seen_(at::zeros({std::ssize(ids_)}, at::kByte)) {
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    const model::WeightId& id = ids_[i];
    const auto place = static_cast<std::int64_t>(i);
    if (id.role == model::Role::kRouter) router_ = place;
    if (!model::is_expert_role(id.role)) continue;
    const auto expert = static_cast<std::size_t>(id.expert);
    if (experts_.size() <= expert) experts_.resize(expert + 1);
    if (id.role == model::Role::kExpertGate) experts_[expert].gate = place;
    if (id.role == model::Role::kExpertUp) experts_[expert].up = place;
    if (id.role == model::Role::kExpertDown) experts_[expert].down = place;
    if (id.role == model::Role::kExpertGateBias) {
      experts_[expert].gate_bias = place;
    }
    if (id.role == model::Role::kExpertUpBias) experts_[expert].up_bias = place;
  }
}

void WeightGradients::begin_layer(
    sweep::Pass pass, model::LayerWeights& weights) {
  // With kept graphs the forward pass is where autograd looks; without, asking
  // there changes nothing.
  for (const model::WeightId& id : ids_) {
    if (!by_autograd(id)) continue;
    model::weight_slot(weights, id.role).set_requires_grad(true);
  }
  if (pass != sweep::Pass::kBackward) return;
  clear();
  weights_ = &weights;
  adds_up_ = false;
  seen_ = at::zeros({std::ssize(ids_)}, at::kByte);
}

// A sum of nothing is zeros in every shard and at every rank, in the shape that
// the layer has the weight in.
void WeightGradients::for_each_sum(const sweep::SumVisitor& visit) {
  const at::NoGradGuard no_grad;
  adds_up_ = true;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (gradients_[i].defined()) continue;
    gradients_[i] = at::zeros(
        packed_view(*weights_, ids_[i]).sizes(),
        at::dtype(at::kFloat).device(weights_->device()));
  }
  collect();
  for (at::Tensor& gradient : gradients_) {
    visit(gradient, ranks::Reduction::kSum);
  }
  if (!ids_.empty()) visit(seen_, ranks::Reduction::kMax);
}

void WeightGradients::collect_shard() {
  const at::NoGradGuard no_grad;
  adds_up_ = true;
  collect();
}

void WeightGradients::see(std::int64_t place) {
  seen_.mutable_data_ptr<std::uint8_t>()[place] = 1;
}

void WeightGradients::on_expert_gradient(const model::ExpertGradView& view) {
  if (view.expert >= std::ssize(experts_)) return;
  const at::NoGradGuard no_grad;
  const ExpertPlaces& places = experts_[view.expert];
  // Taps of several experts may do so at once.
  for (const std::int64_t place :
       {places.gate,
        places.up,
        places.down,
        places.gate_bias,
        places.up_bias}) {
    if (place >= 0) see(place);
  }
  if (places.gate >= 0) {
    add_product(gradients_[places.gate], view.d_gate(), view.x);
  }
  if (places.up >= 0) {
    add_product(gradients_[places.up], view.d_up(), view.x);
  }
  if (places.down >= 0) {
    add_product(gradients_[places.down], view.h, view.dy);
  }
  const auto add_bias = [&](std::int64_t place, const at::Tensor& rows) {
    if (place < 0) return;
    const at::Tensor sum = rows.sum(0, false, at::kFloat);
    at::Tensor& gradient = gradients_[place];
    gradient = gradient.defined() ? gradient + sum : sum;
  };
  add_bias(places.gate_bias, view.d_gate());
  add_bias(places.up_bias, view.d_up());
}

void WeightGradients::on_router_gradient(
    const at::Tensor& x, const at::Tensor& d_logits) {
  if (router_ < 0) return;
  const at::NoGradGuard no_grad;
  see(router_);
  add_product(gradients_[router_], d_logits.to(at::kFloat), x.to(at::kFloat));
}

void WeightGradients::collect() {
  // Without tensors, but as the layer says that they lie.
  model::LayerWeights gradients;
  gradients.experts.activation = weights_->experts.activation;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    const model::WeightId& id = ids_[i];
    if (!by_autograd(id)) continue;
    const at::Tensor& gradient = model::weight_slot(*weights_, id.role).grad();
    // A leaf that nobody asked about has none.
    if (!gradient.defined()) continue;
    model::weight_slot(gradients, id.role) = gradient;
    const at::Tensor sum = packed_view(gradients, id).to(at::kFloat);
    if (gradients_[i].defined()) {
      gradients_[i].add_(sum);
    } else {
      gradients_[i] = sum;
    }
    see(static_cast<std::int64_t>(i));
  }
  if (!adds_up_) return;
  // The next shard begins anew. Weights may share a tensor of the layer.
  for (const model::WeightId& id : ids_) {
    if (!by_autograd(id)) continue;
    model::weight_slot(*weights_, id.role).mutable_grad().reset();
  }
}

void WeightGradients::end_layer(sweep::Pass pass) {
  if (pass != sweep::Pass::kBackward) return;
  const at::NoGradGuard no_grad;
  collect();
  weights_ = nullptr;
  if (!adds_up_) return;
  const auto* const seen = seen_.const_data_ptr<std::uint8_t>();
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (seen[i] == 0) gradients_[i].reset();
  }
}

double WeightGradients::norm_squared() const {
  at::Tensor total;
  for (const at::Tensor& gradient : gradients_) {
    if (!gradient.defined()) continue;
    const at::Tensor one = tune::norm_squared(gradient, 0);
    total = total.defined() ? total + one : one;
  }
  return total.defined() ? total.item<double>() : 0.0;
}

void WeightGradients::clear() {
  for (at::Tensor& gradient : gradients_) gradient.reset();
}

}  // namespace fettle::tune
