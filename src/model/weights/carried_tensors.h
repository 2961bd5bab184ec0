// SPDX-License-Identifier: Apache-2.0
// Tensors of a checkpoint that are no weights of its language model and that a
// model written from it keeps: vision towers and other parts of a larger model,
// and heads that predict further tokens (multi-token prediction). None is ever
// read into the model.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/checkpoint.h"
#include "model/family/model_config.h"

namespace fettle::model {

enum class CarriedKind {
  kPart,  // of a larger model: vision, audio, projectors
  kMtp,   // of a head that predicts further tokens
};

struct CarriedTensor {
  const io::TensorInfo* tensor = nullptr;  // held by the checkpoint
  CarriedKind kind = CarriedKind::kPart;
  // What the names of its part begin with, such as "model.layers.61.".
  std::string part;
};

// The names of the language model's tensors in `checkpoint`, by those of the
// embeddings.
TensorNames find_names(
    const ModelConfig& config, const io::Checkpoint& checkpoint);

// What a tensor that is no weight of the language model is carried as; none: it
// is not carried. A layer behind the model's own is a head where it projects
// embeddings (eh_proj).
std::optional<CarriedTensor> carried_tensor(
    const ModelConfig& config,
    const io::Checkpoint& checkpoint,
    const io::TensorInfo& tensor);

}  // namespace fettle::model
