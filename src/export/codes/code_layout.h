// SPDX-License-Identifier: Apache-2.0
// A way to lay matrices of integer codes into safetensors files, and the
// formats that are one.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "export/codes/code_matrix.h"
#include "export/codes/code_plan.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"

namespace fettle::exporter {

class CodeLayout {
 public:
  virtual ~CodeLayout() = default;

  // The name under which loaders look for a weight of a stock checkpoint.
  virtual std::string tensor_name(const std::string& stock) const {
    return stock;
  }
  virtual at::ScalarType scale_type() const = 0;
  // The tensors of a matrix; `module` is its weight's name without ".weight".
  virtual std::vector<io::TensorSpec> specs(
      const std::string& module,
      const std::vector<std::int64_t>& shape,
      const CodeForm& form) const = 0;
  // As specs() says, in its order. Scales fit the scale type.
  virtual std::vector<at::Tensor> tensors(
      const CodeMatrix& matrix, const CodeForm& form) const = 0;
  // The values [rows, cols] in fp32, unpacked from what was written without
  // any code that packs.
  virtual at::Tensor read_back(
      const io::Checkpoint& checkpoint,
      const std::string& module,
      const std::vector<std::int64_t>& shape,
      const CodeForm& form) const = 0;
  // "quantization_config" of config.json.
  virtual Json config(const CodePlan& plan) const = 0;
  // Says in that part of config.json that modules of this pattern hold no
  // codes.
  virtual void leave_plain(Json& config, const std::string& regex) const = 0;
  // Files that loaders want beside config.json.
  virtual void write_extra(
      const std::filesystem::path& /*folder*/, const Json& /*config*/) const {}
};

// compressed_tensors.cpp. `type` is the one the model is loaded in.
CodeRules compressed_tensors_rules();
std::unique_ptr<CodeLayout> compressed_tensors_layout(at::ScalarType type);

// gptq_layout.cpp.
CodeRules gptq_rules();
std::unique_ptr<CodeLayout> gptq_layout(const CodePlan& plan);

// "model.layers.0.mlp.gate_proj" of "model.layers.0.mlp.gate_proj.weight".
std::string module_of(const std::string& weight);

// A tensor of a checkpoint; `type` is the one that it has (InternalError
// otherwise).
at::Tensor read_tensor(
    const io::Checkpoint& checkpoint,
    const std::string& name,
    at::ScalarType type);

}  // namespace fettle::exporter
