// SPDX-License-Identifier: Apache-2.0
// A tiny model with packed weights, of sizes that blocks and words divide.
#pragma once

#include <fstream>
#include <functional>
#include <optional>
#include <string>

#include "../artifact/tiny_model.h"
#include "artifact/tensor_file.h"
#include "kernels/gptq.h"
#include "model/weights/packed_weight.h"
#include "wide_options.h"

namespace fettle::testing {

using Grids =
    std::function<std::optional<kernels::QuantGrid>(const model::WeightId&)>;

inline kernels::QuantGrid ints(
    std::int64_t bits, std::int64_t group, bool symmetric = true) {
  return {kernels::PackedKind::kInt, bits, symmetric, group, 0};
}

inline kernels::QuantGrid trits(std::int64_t group) {
  return {kernels::PackedKind::kTernary, 0, true, group, 0};
}

// Experts by `experts`, other matrices but embeddings and head by `others`.
inline Grids grids(
    std::optional<kernels::QuantGrid> experts,
    std::optional<kernels::QuantGrid> others) {
  return [=](const model::WeightId& id) {
    if (model::is_expert_role(id.role)) return experts;
    const bool matrix =
        model::is_attention_role(id.role) || model::is_mlp_role(id.role);
    return matrix ? others : std::nullopt;
  };
}

class PackedTinyModel {
 public:
  PackedTinyModel(const TinyModelOptions& options, const Grids& of)
      : config_(tiny_config(options)) {
    const TinyModel plain(options);
    artifact::TensorFile file =
        artifact::load_tensors(plain.path() / "model.safetensors");
    for (const model::WeightId& id : model::model_weights(config_)) {
      const std::string name = model::weight_name(config_, id);
      auto grid = of(id);
      if (!grid) continue;
      const at::Tensor values = file.tensors[name].to(at::kFloat).clone();
      const std::int64_t cols = std::max<std::int64_t>(values.size(1), 1);
      grid->group = std::min(grid->group, cols);
      file.tensors.erase(name);
      file.tensors[name + std::string(model::kPackedSuffix)] = model::to_stored(
          kernels::pack(kernels::quantize({values, {}}, *grid), *grid));
    }
    artifact::save_tensors(path() / "model.safetensors", file);
    Json json = model::config_json(config_);
    json["quantization_config"] = {{"quant_method", "fettle"}, {"format", 1}};
    std::ofstream(path() / "config.json") << json.dump(2);
    write_tokenizer();
  }

  const std::filesystem::path& path() const { return folder_.path(); }
  const model::ModelConfig& config() const { return config_; }

 private:
  // Bytes 'A' on, one a row of the embeddings.
  void write_tokenizer() const {
    Json vocab = Json::object();
    for (std::int64_t i = 0; i < config_.vocab_size; ++i) {
      vocab[std::string(1, static_cast<char>('A' + i))] = i;
    }
    const Json json = {
        {"added_tokens", Json::array()},
        {"pre_tokenizer",
         {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"use_regex", true}}},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model",
         {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
    std::ofstream(path() / "tokenizer.json") << json.dump();
  }

  TemporaryFolder folder_;
  model::ModelConfig config_;
};

}  // namespace fettle::testing
