// SPDX-License-Identifier: Apache-2.0
// Writes a model folder in Fettle's own form: every expert by its own 2-D
// tensors at its real width, config.json, companions and manifest. Tensors are
// streamed in canonical order; nothing is held.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>

#include "artifact/manifest.h"
#include "model/model_config.h"
#include "model/model_reader.h"
#include "model/weight_table.h"

namespace fettle::artifact {

struct ModelWriterInput {
  const model::ModelReader& source;    // companions and default dtypes
  const model::ModelConfig& config;    // of the model to write
  // Type of one tensor on disk: headers are written before any tensor.
  std::function<at::ScalarType(const model::WeightId&)> dtype;
  // The tensor, [weight_shape] in that type, on the CPU. Called in order.
  std::function<at::Tensor(const model::WeightId&)> tensor;
  StageRecord record;
};

// Writes into `folder`, which exists (an AtomicDirectory's path).
void write_model(
    const ModelWriterInput& input,
    const std::filesystem::path& folder);

}  // namespace fettle::artifact
