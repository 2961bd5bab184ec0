// SPDX-License-Identifier: Apache-2.0
// A model folder of a few kilobytes with seeded random weights, made for one
// test and removed after it.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "../model/sample_config.h"
#include "../temporary_folder.h"
#include "artifact/tensor_file.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/layers/token_batch.h"

namespace fettle::testing {

using fettle::TemporaryFolder;

struct TinyModelOptions {
  std::string family = "qwen3_moe";
  Json changes = Json::object();  // of config.json
  // Width of each expert, by layer; empty: as in the configuration.
  std::vector<std::vector<std::int64_t>> widths = {};
  bool constants = false;
  // Of each sparse layer.
  std::vector<std::int64_t> condensers = {};
  bool router_bias = false;
  at::ScalarType type = at::kFloat;
  std::uint64_t seed = 1;
  // Changes a tensor before it is written.
  std::function<at::Tensor(const model::WeightId&, at::Tensor)> edit = {};
};

inline model::ModelConfig tiny_config(const TinyModelOptions& options) {
  model::ModelConfig config =
      model::testing::sample(options.family, options.changes);
  for (std::size_t l = 0; l < options.widths.size(); ++l) {
    config.layers[l].expert_widths = options.widths[l];
  }
  for (model::LayerConfig& layer : config.layers) {
    if (!layer.sparse) continue;
    layer.has_constants = layer.has_constants || options.constants;
    layer.router_bias = layer.router_bias || options.router_bias;
    layer.condensers = options.condensers;
  }
  return config;
}

class TinyModel {
 public:
  explicit TinyModel(const TinyModelOptions& options = {})
      : config_(tiny_config(options)) {
    auto generator = at::detail::createCPUGenerator(options.seed);
    artifact::TensorFile file;
    file.metadata = {{"format", "pt"}};
    for (const model::WeightId& id : model::model_weights(config_)) {
      const auto shape = model::stored_shape(config_, id);
      at::Tensor tensor = at::randn(shape, generator, at::kFloat);
      // Norms around one; matrices so that activations keep their size.
      tensor = shape.size() == 1 ? tensor * 0.1 + 1 : tensor * 0.35;
      if (options.edit) tensor = options.edit(id, tensor);
      const bool fp32 = id.role == model::Role::kExpertConstant ||
                        id.role == model::Role::kRouterCorrection ||
                        id.role == model::Role::kRouterBias;
      file.tensors[model::weight_name(config_, id)] =
          tensor.to(fp32 ? at::kFloat : options.type);
    }
    artifact::save_tensors(path() / "model.safetensors", file);
    std::ofstream(path() / "config.json")
        << model::config_json(config_).dump(2);
  }

  const std::filesystem::path& path() const { return folder_.path(); }
  const model::ModelConfig& config() const { return config_; }

 private:
  TemporaryFolder folder_;
  model::ModelConfig config_;
};

// Random token ids of `count` sequences; every token is scored.
inline std::vector<model::Sequence> random_data(
    std::int64_t count, std::int64_t length, std::int64_t vocab_size) {
  auto generator = at::detail::createCPUGenerator(7);
  std::vector<model::Sequence> data(count);
  for (model::Sequence& sequence : data) {
    const at::Tensor ids =
        at::randint(vocab_size, {length}, generator, at::kInt);
    const int* begin = ids.const_data_ptr<int>();
    sequence.ids.assign(begin, begin + length);
    sequence.labels = sequence.ids;
  }
  return data;
}

}  // namespace fettle::testing
