// SPDX-License-Identifier: Apache-2.0
// Writes small model folders for tests, tensor by tensor.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "core/json.h"
#include "kernels/gptq.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/packed_weight.h"

namespace fettle::model::testing {

class ModelFolder {
 public:
  // All weights of `config`, filled by value(), still in memory.
  explicit ModelFolder(const ModelConfig& config);
  ~ModelFolder();
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  // Element i of weight w: distinct small integers that bf16 and fp16 hold
  // exactly, so that a row, an expert or a type mixed up shows.
  static at::Tensor value(const std::vector<std::int64_t>& shape, int seed);

  at::Tensor& operator[](const std::string& name) { return tensors_[name]; }
  at::Tensor& operator[](const WeightId& id);
  // Packs a weight, each value to its nearest level, and returns the values
  // that it then has.
  at::Tensor pack(const WeightId& id, const kernels::QuantGrid& grid);
  void zero() {
    for (auto& [name, tensor] : tensors_) tensor.zero_();
  }
  void rename(const std::function<std::string(std::string)>& to);
  void erase(const std::string& name) { tensors_.erase(name); }
  Json& json() { return json_; }

  // Replaces the experts of a layer by stacked tensors under `prefix`.
  void fuse(std::int64_t layer, const std::string& prefix);

  // Writes config.json and the tensors, and returns the folder.
  const std::filesystem::path& write();

 private:
  ModelConfig config_;
  Json json_;
  std::map<std::string, at::Tensor> tensors_;
  std::filesystem::path folder_;
};

}  // namespace fettle::model::testing
