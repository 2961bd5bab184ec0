// SPDX-License-Identifier: Apache-2.0
#include "trim/merged_weights.h"

#include <numeric>

#include "core/error.h"

namespace fettle::trim {

using model::Role;

std::vector<double> MergedWeights::shares(
    std::int64_t layer, const ExpertGroup& group) const {
  std::vector<double> result;
  for (const std::int64_t e : group) {
    result.push_back(static_cast<double>(experts_.tokens[layer][e]));
  }
  const double sum = std::accumulate(result.begin(), result.end(), 0.0);
  for (double& share : result) {
    share = sum > 0 ? share / sum : 1.0 / static_cast<double>(group.size());
  }
  return result;
}

// A merged expert has the scale of its group's first: what came under another
// is weighed by the ratio.
std::vector<double> MergedWeights::ratios(
    std::int64_t layer, const ExpertGroup& group) const {
  std::vector<double> result(group.size(), 1.0);
  if (!reader_.config().router.expert_scales) return result;
  const at::Tensor scales =
      reader_.read({Role::kExpertScale, layer, -1}).to(at::kDouble);
  const auto* const scale = scales.const_data_ptr<double>();
  for (std::size_t i = 1; i < group.size(); ++i) {
    result[i] = scale[group[i]] / scale[group[0]];
  }
  return result;
}

void MergedWeights::merge(std::int64_t layer, std::int64_t place) const {
  const ExpertGroup& group = experts_.groups[layer][place];
  const std::vector<double> weights = shares(layer, group);
  const std::vector<double> scaled = ratios(layer, group);
  MergedExpert merged(experts_.align);
  for (std::size_t i = 0; i < group.size(); ++i) {
    const auto read = [&](Role role) {
      return reader_.read({role, layer, group[i]});
    };
    ExpertTensors expert{{}, read(Role::kExpertUp), read(Role::kExpertDown)};
    if (model::inputs_of(reader_.config().activation) > 1) {
      expert.gate = read(Role::kExpertGate);
    }
    if (reader_.config().expert_bias) {
      expert.gate_bias = read(Role::kExpertGateBias);
      expert.up_bias = read(Role::kExpertUpBias);
    }
    if (scaled[i] != 1.0) expert.down = expert.down.to(at::kDouble) * scaled[i];
    merged.add(expert, weights[i]);
  }
  merged_[place] = merged.mean();
}

at::Tensor MergedWeights::constants(std::int64_t layer) const {
  const at::Tensor whole =
      reader_.read({Role::kExpertConstant, layer, -1}).to(at::kFloat);
  const auto& groups = experts_.groups[layer];
  at::Tensor result = at::zeros(
      {static_cast<std::int64_t>(groups.size()), whole.size(1)}, at::kFloat);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::vector<double> weights = shares(layer, groups[g]);
    const std::vector<double> scaled = ratios(layer, groups[g]);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      result[static_cast<std::int64_t>(g)].add_(
          whole[groups[g][i]], weights[i] * scaled[i]);
    }
  }
  return result;
}

at::Tensor MergedWeights::tensor(const model::WeightId& id) const {
  if (id.role == Role::kExpertConstant) return constants(id.layer);
  FETTLE_ASSERT(model::is_expert_role(id.role));
  // An expert alone in its group is what it was, to the bit.
  const ExpertGroup& group = experts_.groups[id.layer][id.expert];
  if (group.size() == 1) return reader_.read({id.role, id.layer, group[0]});
  if (layer_ != id.layer) {
    layer_ = id.layer;
    merged_.assign(experts_.groups[id.layer].size(), {});
  }
  if (!merged_[id.expert].up.defined()) merge(id.layer, id.expert);
  const ExpertTensors& merged = merged_[id.expert];
  switch (id.role) {
    case Role::kExpertGate:
      return merged.gate;
    case Role::kExpertUp:
      return merged.up;
    case Role::kExpertGateBias:
      return merged.gate_bias;
    case Role::kExpertUpBias:
      return merged.up_bias;
    default:
      return merged.down;
  }
}

}  // namespace fettle::trim
