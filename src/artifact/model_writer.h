// SPDX-License-Identifier: Apache-2.0
// Writes a model folder in Fettle's own form: every expert by its own 2-D
// tensors at its real width, config.json, companions and manifest. Tensors are
// streamed in canonical order; nothing is held.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "artifact/manifest.h"
#include "core/progress.h"
#include "model/model_config.h"
#include "model/model_reader.h"
#include "model/weight_table.h"

namespace fettle::artifact {

struct ModelWriterInput {
  const model::ModelReader& source;  // companions
  const model::ModelConfig& config;  // of the model to write
  // Type of one tensor on disk: headers are written before any tensor.
  std::function<at::ScalarType(const model::WeightId&)> dtype;
  // The tensor, [weight_shape] in that type, on the CPU. Called in order.
  std::function<at::Tensor(const model::WeightId&)> tensor;
  StageRecord record = {};
  std::string label = {};        // of the progress shown, such as "trim"
  Reporter* reporter = nullptr;  // null: silent
};

// Writes into `folder`, which exists (an AtomicDirectory's path). Throws
// InternalError when a tensor has not the shape or type declared.
void write_model(
    const ModelWriterInput& input, const std::filesystem::path& folder);

// A model's size, before or after a stage.
struct ModelSize {
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  std::int64_t bytes = 0;  // of all tensors
  std::int64_t experts = 0;
  std::int64_t neurons = 0;  // sum of the experts' widths
  std::int64_t min_width = 0;
  double median_width = 0;
  std::int64_t max_width = 0;
  std::int64_t zero_width = 0;  // experts without a neuron

  Json to_json() const;
};

// The size of a model of `config` whose tensors have types `dtype`.
ModelSize model_size(
    const model::ModelConfig& config,
    const std::function<at::ScalarType(const model::WeightId&)>& dtype);

// Bytes of one tensor.
std::int64_t weight_bytes(
    const model::ModelConfig& config,
    const model::WeightId& id,
    at::ScalarType type);

}  // namespace fettle::artifact
