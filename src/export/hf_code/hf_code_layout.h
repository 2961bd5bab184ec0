// SPDX-License-Identifier: Apache-2.0
// A folder for transformers with code of its own (modeling_fettle.py): the
// stock classes of the family with experts of any number and width. Experts of
// one layer and width lie in one tensor; everything else has the names that it
// has in the memory of transformers, so that no name is converted.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/safetensors.h"
#include "model/family/model_config.h"
#include "model/weights/model_reader.h"

namespace fettle::exporter {

// Beside the weights.
inline constexpr const char* kHfCodeFile = "modeling_fettle.py";

// One tensor of the folder.
struct HfCodeTensor {
  io::TensorSpec spec;
  // What is written at a time, one behind the other: a weight, or an expert's
  // gate and up.
  std::vector<std::vector<model::WeightId>> pieces;
};

// Throws UserError naming the model's type where the language model is part of
// a larger one whose tensors have other names than in transformers' memory.
void require_hf_code(const model::ModelConfig& config);

// In canonical order.
std::vector<HfCodeTensor> hf_code_tensors(
    const model::ModelConfig& config, const model::WeightForms& form);

// A piece of a tensor, from its weights as the reader gives them.
at::Tensor hf_code_piece(
    const model::ModelConfig& config,
    const std::vector<model::WeightId>& piece,
    const std::vector<at::Tensor>& weights);

// config.json with a type of its own, the classes of modeling_fettle.py and
// the experts of each layer.
Json hf_code_config(const model::ModelConfig& config);

// The text of modeling_fettle.py.
std::string hf_code_module(const model::ModelConfig& config);

}  // namespace fettle::exporter
