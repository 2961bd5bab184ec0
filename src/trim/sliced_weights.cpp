// SPDX-License-Identifier: Apache-2.0
#include "trim/sliced_weights.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "trim/kept_blocks.h"
#include "trim/packed_slices.h"

namespace fettle::trim {
namespace {

using model::Role;

at::Tensor index_tensor(const std::vector<std::int64_t>& values) {
  return at::tensor(values, at::kLong);
}

}  // namespace

at::ScalarType constant_type(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const std::function<at::ScalarType(const model::WeightId&)>& stored) {
  const bool own = model::weight_row(config, id.role).own;
  return own ? at::kFloat : stored(id);
}

SlicedWeights::SlicedWeights(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const Making& making)
    : reader_(reader), plan_(plan), repairs_(making) {}

model::WeightId SlicedWeights::source(const model::WeightId& id) const {
  if (id.expert < 0) return id;
  return {id.role, id.layer, plan_.layers[id.layer].experts[id.expert].expert};
}

bool SlicedWeights::stays(const model::WeightId& id) const {
  const model::RoleScope scope = model::role_info(id.role).scope;
  if (scope != model::RoleScope::kExpert)
    return scope != model::RoleScope::kRows;
  const bool refitted =
      id.role == Role::kExpertDown && repairs_.sweep != nullptr;
  const artifact::ExpertPlan& expert =
      plan_.layers[id.layer].experts[id.expert];
  return !refitted && repairs_.merged == nullptr &&
         expert.width() ==
             reader_.config().layers[id.layer].expert_widths[expert.expert];
}

model::WeightForm SlicedWeights::form(const model::WeightId& id) const {
  if (id.role == Role::kExpertConstant) {
    return {constant_type(reader_.config(), id, [&](const auto& own) {
      return reader_.dtype(own);
    })};
  }
  if (keeps_blocks(id)) return kept_form(reader_, source(id));
  if (stays(id)) return reader_.form(source(id));
  if (repacks(id)) {
    const std::int64_t kept = plan_.layers[id.layer].experts[id.expert].width();
    const std::int64_t hidden = reader_.config().hidden_size;
    const bool down = id.role == Role::kExpertDown;
    const auto header = resized(
        *reader_.packed_header(source(id)),
        down ? hidden : kept,
        down ? kept : hidden);
    return {at::kByte, header.bytes()};
  }
  return {reader_.dtype(source(id))};
}

bool SlicedWeights::keeps_blocks(const model::WeightId& id) const {
  return repairs_.stored == Stored::kKeep &&
         model::role_info(id.role).scope != model::RoleScope::kRows &&
         kept_form(reader_, source(id)).blocks.has_value();
}

const std::vector<std::int64_t>* SlicedWeights::cut(
    const model::WeightId& id) const {
  if (!model::is_expert_role(id.role)) return nullptr;
  const artifact::ExpertPlan& expert =
      plan_.layers[id.layer].experts[id.expert];
  const auto& widths = reader_.config().layers[id.layer].expert_widths;
  return expert.width() == widths[expert.expert] ? nullptr : &expert.neurons;
}

bool SlicedWeights::repacks(const model::WeightId& id) const {
  return model::is_expert_role(id.role) && repairs_.merged == nullptr &&
         reader_.packed_header(source(id)) != nullptr;
}

at::Tensor SlicedWeights::repacked(const model::WeightId& id) const {
  const auto& kept = plan_.layers[id.layer].experts[id.expert].neurons;
  if (id.role == Role::kExpertDown) {
    return model::to_stored(
        rounded_anew(expert_rows(id), *reader_.packed_header(source(id))));
  }
  return model::to_stored(
      select_rows(reader_.read_packed(source(id)), index_tensor(kept)));
}

at::Tensor SlicedWeights::tensor(const model::WeightId& id) const {
  if (keeps_blocks(id)) return kept_bytes(reader_, source(id), cut(id));
  if (stays(id)) return reader_.read_stored(source(id));
  if (repacks(id)) return repacked(id);
  const bool merged =
      repairs_.merged != nullptr &&
      (model::is_expert_role(id.role) || id.role == Role::kExpertConstant);
  if (merged) return repairs_.merged->tensor(id).to(form(id).dtype);
  if (model::is_expert_role(id.role)) return expert_rows(id);
  if (id.role == Role::kExpertConstant) {
    return constants(id.layer).to(form(id).dtype);
  }
  return reader_.read(id).index_select(
      0, index_tensor(plan_.layers[id.layer].kept_experts()));
}

at::Tensor SlicedWeights::expert_rows(const model::WeightId& id) const {
  const auto& kept = plan_.layers[id.layer].experts[id.expert].neurons;
  if (repairs_.sweep != nullptr && id.role == Role::kExpertDown) {
    const auto& fitted = repairs_.sweep->layer(id.layer).down;
    if (!fitted.empty() && fitted[id.expert].defined()) {
      return fitted[id.expert];
    }
  }
  const std::int64_t axis = id.role == Role::kExpertDown ? 1 : 0;
  const at::Tensor whole = reader_.read(source(id));
  if (whole.size(axis) == static_cast<std::int64_t>(kept.size())) return whole;
  return whole.index_select(axis, index_tensor(kept));
}

at::Tensor SlicedWeights::lost_mean(
    std::int64_t layer, const artifact::ExpertPlan& expert) const {
  const artifact::LayerScores& scores = repairs_.means->layers[layer];
  const std::int64_t width = scores.widths[expert.expert];
  const std::int64_t begin = std::accumulate(
      scores.widths.begin(),
      scores.widths.begin() + expert.expert,
      std::int64_t{0});
  at::Tensor lost = scores.mean_h.narrow(0, begin, width).clone();
  lost.index_fill_(0, index_tensor(expert.neurons), 0);
  const at::Tensor down =
      reader_.read({Role::kExpertDown, layer, expert.expert});
  return at::mv(down.to(at::kFloat), lost);
}

at::Tensor SlicedWeights::constants(std::int64_t layer) const {
  const artifact::LayerPlan& plan = plan_.layers[layer];
  const model::LayerConfig& before = reader_.config().layers[layer];
  const auto experts = static_cast<std::int64_t>(plan.experts.size());
  at::Tensor result =
      before.has_constants
          ? reader_.read({Role::kExpertConstant, layer, -1})
                .to(at::kFloat)
                .index_select(0, index_tensor(plan.kept_experts()))
          : at::zeros({experts, reader_.config().hidden_size}, at::kFloat);
  if (repairs_.sweep != nullptr) {
    const at::Tensor& fitted = repairs_.sweep->layer(layer).constant;
    if (fitted.defined()) result.add_(fitted);
  }
  if (repairs_.means == nullptr) return result;
  for (std::int64_t e = 0; e < experts; ++e) {
    const artifact::ExpertPlan& expert = plan.experts[e];
    const std::int64_t width = before.expert_widths[expert.expert];
    if (expert.width() == width) continue;
    result[e].add_(lost_mean(layer, expert));
  }
  return result;
}

}  // namespace fettle::trim
