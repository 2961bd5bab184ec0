// SPDX-License-Identifier: Apache-2.0
// The tensors that a written model folder has, and what each is made of: a
// weight, or the experts of a layer where other loaders of the family find
// them in one tensor alone.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/model_reader.h"

namespace fettle::artifact {

struct WrittenTensor {
  // One, or of weights in blocks codes and scales.
  std::vector<io::TensorSpec> specs = {};
  // What is written at a time, one behind the other: a weight, or an expert's
  // gate and up.
  std::vector<std::vector<model::WeightId>> pieces = {};
  bool stacked = false;
};

struct WrittenOptions {
  const model::WeightForms& form;
  // Whether other loaders are to find the model.
  bool stock = false;
};

// In the order of model_weights.
std::vector<WrittenTensor> written_tensors(
    const model::ModelConfig& config, const WrittenOptions& options);

// Codes and scales of MXFP4 of this name: of a matrix, or of a stack
// [count, rows, cols].
std::vector<io::TensorSpec> mxfp4_specs(
    const std::string& name, std::vector<std::int64_t> shape);

// Rows of a piece's weights as a stack in blocks holds them, whose rows are
// outputs in any order of stacks.
at::Tensor stacked_outputs(
    const model::WeightRow& row, const std::vector<at::Tensor>& parts);

// A piece of a stack as it lies there. `parts`: the piece's weights.
at::Tensor stacked_piece(
    const model::WeightRow& row, const std::vector<at::Tensor>& parts);

}  // namespace fettle::artifact
