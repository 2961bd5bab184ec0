// SPDX-License-Identifier: Apache-2.0
#include "export/exported_weights.h"

#include <algorithm>

namespace fettle::exporter {
namespace {

using model::Role;

// Selection hangs on the last bits of a router's biases, and stock checkpoints
// keep theirs in fp32; so do Fettle's own constants.
bool keeps_type(Role role) {
  return role == Role::kRouterCorrection || role == Role::kRouterBias ||
         role == Role::kExpertConstant;
}

bool holds(at::ScalarType wide, at::ScalarType narrow) {
  return wide == narrow || wide == at::kFloat || wide == at::kDouble;
}

}  // namespace

ExportedWeights::ExportedWeights(
    const model::ModelReader& reader,
    const model::ModelConfig& target,
    const ExportOptions& options)
    : reader_(reader), target_(target), options_(options) {}

bool ExportedWeights::stays_packed(const model::WeightId& id) const {
  return options_.format == Format::kRagged && !options_.dtype &&
         reader_.packed_header(id) != nullptr;
}

model::WeightForm ExportedWeights::form(const model::WeightId& id) const {
  return stays_packed(id) ? reader_.form(id) : model::WeightForm{dtype(id)};
}

at::ScalarType ExportedWeights::dtype(const model::WeightId& id) const {
  if (!options_.dtype || keeps_type(id.role)) return reader_.dtype(id);
  return *options_.dtype;
}

at::Tensor ExportedWeights::tensor(const model::WeightId& id) const {
  if (stays_packed(id)) return reader_.read_stored(id);
  const at::Tensor source = reader_.read(id).to(dtype(id));
  if (!model::is_expert_role(id.role)) return source;
  const std::int64_t axis = id.role == Role::kExpertDown ? 1 : 0;
  const std::int64_t width = source.size(axis);
  const std::vector<std::int64_t> shape = model::weight_shape(target_, id);
  if (shape[axis] == width) return source;
  at::Tensor padded = at::zeros(shape, source.options());
  padded.narrow(axis, 0, width).copy_(source);
  return padded;
}

bool ExportedWeights::narrows() const {
  const auto ids = model::model_weights(target_);
  return std::ranges::any_of(ids, [&](const model::WeightId& id) {
    return !holds(dtype(id), reader_.dtype(id));
  });
}

}  // namespace fettle::exporter
