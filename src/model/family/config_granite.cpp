// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_granite.h"

namespace fettle::model {

ExpertKeys granite_expert_keys() {
  return {{"num_local_experts"}, 8, "intermediate_size", 11008, 2};
}

ModelConfig parse_granite(const JsonObject& json) {
  constexpr std::string_view kEmbedding = "embedding_multiplier";
  constexpr std::string_view kResidual = "residual_multiplier";
  constexpr std::string_view kSoftmax = "attention_multiplier";
  constexpr std::string_view kLogits = "logits_scaling";
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 32000,
       .hidden_size = 4096,
       .layers = 32,
       .heads = 32,
       .max_position = 2048,
       .eos_token_ids = {2},
       .own_options = {kEmbedding, kResidual, kSoftmax, kLogits}});
  parse_gqa(json, {}, config);
  AttentionConfig& attention = config.attention();
  attention.qkv_bias = json.boolean_or("attention_bias", false);
  attention.o_bias = attention.qkv_bias;
  attention.softmax_scale = read_number(json, {kSoftmax, 1.0});
  config.router.score = RouterScore::kTopkThenSoftmax;
  config.block.residual_multiplier = read_number(json, {kResidual, 1.0});
  config.ends.embedding_multiplier = read_number(json, {kEmbedding, 1.0});
  config.ends.logits_scaling = read_number(json, {kLogits, 1.0});
  return config;
}

void place_granite_experts(
    const JsonObject& json, std::int64_t shared_width, ModelConfig& config) {
  LayerConfig sparse = parse_experts(json, granite_expert_keys());
  if (!sparse.sparse) {
    json.refuse("num_local_experts", "is 0; a sparse layer has experts");
  }
  sparse.shared_width = shared_width;
  if (shared_width > 0) config.shared_expert = SharedExpert::kPlain;
  config.layers.assign(config.layers.size(), sparse);
}

}  // namespace fettle::model
