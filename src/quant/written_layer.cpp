// SPDX-License-Identifier: Apache-2.0
#include "quant/written_layer.h"

#include <memory>
#include <utility>

#include "model/weights/made_expert.h"
#include "model/weights/weight_view.h"
#include "model/weights/weight_visit.h"

namespace fettle::quant {

using model::WeightId;

model::LayerWeights as_written(
    const model::ModelReader& reader,
    std::int64_t layer,
    const model::LayerWeights& read,
    model::PackedLayer packed,
    at::ScalarType type) {
  model::LayerWeights weights = read;
  model::for_each_tensor(weights, [](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.clone();
  });
  const bool apart = read.experts.is_apart();
  for (const auto& [key, matrix] : packed.matrices()) {
    const auto& [role, expert] = key;
    if (apart && model::kExpertRoles.has(role)) continue;
    matrix.unpack_into(model::weight_view(weights, {role, layer, expert}));
  }
  if (!apart) return weights;
  const auto kept = std::make_shared<model::PackedLayer>(std::move(packed));
  const auto fill = [kept, &reader](
                        const WeightId& id, const at::Tensor& view) {
    const auto found = kept->matrices().find({id.role, id.expert});
    if (found != kept->matrices().end()) {
      found->second.unpack_into(view);
    } else {
      at::Tensor into = view;
      into.copy_(reader.read(id));
    }
  };
  weights.experts.make = [fill, &reader, layer, type](std::int64_t e) {
    return model::made_expert(reader.config(), layer, e, type, fill);
  };
  return weights;
}

}  // namespace fettle::quant
