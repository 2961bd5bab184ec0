// SPDX-License-Identifier: Apache-2.0
// The memory that a model's weights take once they are loaded. It follows from
// the configuration and the forms of the weights, so that a model that does
// not exist yet is planned as one that does.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/weight_form.h"

namespace fettle::model {

// Of the layers, in bytes.
struct LoadedBytes {
  struct Layer {
    std::int64_t kept = 0;      // as it is loaded: packed weights stay packed
    std::int64_t unpacked = 0;  // with all of them unpacked
    std::int64_t expert = 0;    // the largest expert, unpacked
  };
  std::vector<Layer> layers;
};

// The type in which a model holds embeddings and head whose weights are
// computed in `type`: bfloat16 on a CPU where they are stored so and
// `decodes`, since a decoded token reads one row of them, and products of few
// rows take all of the head as it is.
at::ScalarType globals_type(
    const ModelConfig& config,
    const WeightForms& forms,
    at::ScalarType type,
    bool decodes);

// Embeddings, final norm and head, in bytes.
struct GlobalBytes {
  std::int64_t all = 0;
  std::int64_t norm = 0;
  std::int64_t head = 0;  // also where it is the embeddings
};
GlobalBytes global_bytes(
    const ModelConfig& config,
    const WeightForms& forms,
    at::ScalarType type,
    bool decodes);

// Of a model whose plain weights are computed in `type`; without what is plain
// of experts that are apart (mlp_weights.h), and without what is unpacked.
LoadedBytes loaded_bytes(
    const ModelConfig& config,
    const WeightForms& forms,
    at::ScalarType type,
    bool experts_apart = false);

// Pinned memory that the model's layers take on their way to a card, one at a
// time: libtorch keeps what it pinned, for the next of that size.
std::int64_t staging_bytes(
    const ModelConfig& config, const WeightForms& forms, at::ScalarType type);

// Which roles of a layer stay packed when it is loaded: those of which a weight
// is packed, or one of their MLP.
using KeptPacked = std::map<Role, bool>;
KeptPacked kept_packed(
    const ModelConfig& config,
    std::int64_t layer,
    const std::function<bool(const WeightId&)>& is_packed);

}  // namespace fettle::model
