// SPDX-License-Identifier: Apache-2.0
#include "quant/hessians.h"

#include <set>
#include <utility>

#include "kernels/swiglu.h"
#include "model/weights/side_by_side.h"

namespace fettle::quant {

using model::Role;

Role site_of(Role role) { return model::role_info(role).site; }

namespace {

// Whether a weight of the role is multiplied by every token, and its input is
// kept under its own name.
bool is_other_site(const model::RoleInfo& info) {
  return info.scope == model::RoleScope::kLayer && info.is_packable() &&
         info.site == info.role;
}

}  // namespace

HessianTap::HessianTap(
    const HessianOptions& options,
    const model::LayerWeights& weights,
    const Range& range)
    : options_(options), weights_(weights), range_(range) {
  // All places are made now: experts may be shown side by side.
  for (auto e = range.first_expert; e < range.last_expert; ++e) {
    sums_[{Role::kExpertGate, e}];
    sums_[{Role::kExpertDown, e}];
  }
  if (!range.others) return;
  for (const model::RoleInfo& info : model::role_infos()) {
    if (is_other_site(info)) sums_[{info.role, -1}];
  }
}

bool HessianTap::wants_experts() const {
  return options_.calibration == Calibration::kRouted &&
         range_.first_expert < range_.last_expert;
}

namespace {

void add_to(Hessian& hessian, const at::Tensor& x, const at::Tensor& weight) {
  if (x.size(0) == 0) return;
  at::Tensor scaled = x.to(at::kFloat);
  if (weight.defined()) scaled = scaled * weight.to(at::kFloat).unsqueeze(1);
  hessian.tokens += x.size(0);
  if (hessian.sum.defined()) {
    hessian.sum.addmm_(scaled.t(), scaled);
  } else {
    hessian.sum = at::mm(scaled.t(), scaled);
  }
}

}  // namespace

void HessianTap::add(
    const Key& key, const at::Tensor& x, const at::Tensor& weight) {
  add_to(sums_.at(key), x, weight);
}

void HessianTap::on_expert(std::int64_t, const model::ExpertView& view) {
  if (!watches(view.expert)) return;
  const at::Tensor weight = options_.gate_weighted ? view.weight : at::Tensor();
  add({Role::kExpertGate, view.expert}, view.x, weight);
  add({Role::kExpertDown, view.expert}, view.h, weight);
  sample(view);
}

void HessianTap::sample(const model::ExpertView& view) {
  const std::int64_t rows = view.x.size(0);
  const std::int64_t count = std::min(range_.sample_rows, rows);
  if (count == 0) return;
  // In the middle of as many equal parts.
  const at::Tensor index =
      (at::arange(count, view.x.options().dtype(at::kLong)) * 2 + 1) * rows /
      (2 * count);
  const at::Tensor places = index.to(at::kLong);
  Hessian& into = sums_.at({Role::kExpertGate, view.expert});
  const auto append = [](at::Tensor& all, at::Tensor more) {
    all = all.defined() ? at::cat({all, more}) : std::move(more);
  };
  append(into.sample, view.x.index_select(0, places).to(at::kFloat));
  const at::Tensor weights = view.weight.index_select(0, places);
  append(
      into.sample_weights,
      options_.gate_weighted ? weights.to(at::kFloat).square()
                             : at::ones_like(weights, at::kFloat));
}

void HessianTap::on_routing(std::int64_t, const model::RoutingView& view) {
  if (range_.others) add_to(of_layer_, view.x, {});
  if (options_.calibration != Calibration::kAll) return;
  std::vector<std::int64_t> experts;
  for (auto e = range_.first_expert; e < range_.last_expert; ++e) {
    if (weights_.experts.width(e) > 0) experts.push_back(e);
  }
  model::run_side_by_side(
      experts, view.x.is_cpu(), [&](std::int64_t e) { add_for_all(e, view); });
}

void HessianTap::add_for_all(
    std::int64_t expert, const model::RoutingView& view) {
  const model::ExpertBank& bank = weights_.experts;
  const at::Tensor weight =
      options_.gate_weighted ? view.probs.select(1, expert) : at::Tensor();
  add({Role::kExpertGate, expert}, view.x, weight);
  at::Tensor inner = at::mm(view.x, bank.expert(expert).gate_up.t());
  if (bank.gate_up_bias.defined()) inner.add_(bank.gate_up_bias_of(expert));
  add({Role::kExpertDown, expert},
      kernels::swiglu(inner, bank.activation),
      weight);
}

void HessianTap::on_projection(std::int64_t, Role role, const at::Tensor& x) {
  if (range_.others && site_of(role) == role) add({role, -1}, x, {});
}

namespace {

// Numbers that enter the weights of a site; 0 where the layer has none.
std::int64_t columns_of(
    const model::ModelConfig& config,
    std::int64_t layer,
    const std::pair<Role, std::int64_t>& site) {
  const auto& [role, expert] = site;
  const model::LayerConfig& row = config.layers[layer];
  if (expert >= 0) {
    if (row.expert_widths[expert] == 0) return 0;
    // There may be no gate, but always what has its input.
    const Role any = role == Role::kExpertGate ? Role::kExpertUp : role;
    return model::weight_shape(config, {any, layer, expert}).back();
  }
  if (!model::role_info(role).exists(config, row)) return 0;
  return model::weight_shape(config, {role, layer}).back();
}

}  // namespace

void HessianTap::for_each_sum(
    const model::ModelConfig& config,
    std::int64_t layer,
    const sweep::SumVisitor& visit) {
  if (!counts_.defined()) {
    counts_ = at::zeros({std::ssize(sums_) + 1}, at::kLong);
  }
  auto* count = counts_.mutable_data_ptr<std::int64_t>();
  const auto show = [&](Hessian& hessian, std::int64_t columns) {
    *count++ += std::exchange(hessian.tokens, 0);
    if (columns == 0) return;
    if (!hessian.sum.defined()) {
      hessian.sum = at::zeros(
          {columns, columns}, at::dtype(at::kFloat).device(weights_.device()));
    }
    visit(hessian.sum, ranks::Reduction::kSum);
  };
  const bool routes = range_.others && config.layers[layer].sparse;
  show(of_layer_, routes ? config.hidden_size : 0);
  for (auto& [site, hessian] : sums_) {
    show(hessian, columns_of(config, layer, site));
  }
  visit(counts_, ranks::Reduction::kSum);
}

void HessianTap::end_sums() {
  if (!counts_.defined()) return;
  const auto* count = counts_.const_data_ptr<std::int64_t>();
  const auto take = [&](Hessian& hessian) {
    hessian.tokens = *count++;
    if (hessian.tokens == 0) hessian.sum.reset();
  };
  take(of_layer_);
  for (auto& [site, hessian] : sums_) take(hessian);
}

const Hessian& HessianTap::of(Role role, std::int64_t expert) const {
  const auto found = sums_.find({site_of(role), expert});
  return found == sums_.end() ? none_ : found->second;
}

std::int64_t expert_hessian_bytes(
    const model::ModelConfig& config, std::int64_t layer, std::int64_t expert) {
  const std::int64_t width = config.layers[layer].expert_widths[expert];
  return 4 * (config.hidden_size * config.hidden_size + width * width);
}

std::int64_t other_hessian_bytes(
    const model::ModelConfig& config, std::int64_t layer) {
  std::int64_t total = 0;
  std::set<Role> seen;
  for (const model::WeightId& id : model::layer_weights(config, layer)) {
    if (id.expert >= 0 || !seen.insert(site_of(id.role)).second) continue;
    if (!model::is_attention_role(id.role) && !model::is_mlp_role(id.role)) {
      continue;
    }
    const std::int64_t cols = model::weight_shape(config, id).back();
    total += 4 * cols * cols;
  }
  return total;
}

}  // namespace fettle::quant
