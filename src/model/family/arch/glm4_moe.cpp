// SPDX-License-Identifier: Apache-2.0
// GLM-4.5, 4.6 and 4.7: GQA of which a part of each head rotates, a norm on
// each query and key head in some, and DeepSeek-V3's sparse layers; and the
// language model of GLM-4.5V, which is one of them. Source: transformers 5.17,
// models/glm4_moe and models/glm4v_moe.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_sparse.h"

namespace fettle::model {
namespace {

SparseKeys sparse_keys() {
  return {
      .experts =
          {{"n_routed_experts", "num_experts", "num_local_experts"},
           128,
           "moe_intermediate_size",
           1408,
           8},
      .shared = "n_shared_experts",
      .default_dense_width = 10944};
}

// What the two classes of configurations have each for itself.
struct Defaults {
  std::int64_t vocab_size = 151552;
  std::int64_t max_position = 131072;
  bool attention_bias = false;
};

ModelConfig parse_with(const JsonObject& json, const Defaults& defaults) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = defaults.vocab_size,
       .hidden_size = 4096,
       .layers = 46,
       .heads = 96,
       .kv_heads = 8,
       .max_position = defaults.max_position,
       .norm_eps = 1e-5});
  parse_gqa(json, {.partial_rotary = 0.5}, config);
  config.attention().qkv_bias =
      json.boolean_or("attention_bias", defaults.attention_bias);
  if (json.boolean_or("use_qk_norm", false)) {
    config.attention().qk_norm = QkNorm::kHead;
  }
  parse_corrected_router(json, {}, config.router);
  require_value(json, "moe_layer_freq", 1);
  require_value(json, "sliding_window", nullptr);
  place_experts(
      json,
      sparse_keys(),
      sparse_after_leading(json, 1, config.num_layers()),
      config);
  check_layer_types(json, config);
  return config;
}

ModelConfig parse(const JsonObject& json) { return parse_with(json, {}); }

ModelConfig parse_seeing(const JsonObject& json) {
  require_value(json, "use_qk_norm", false);
  return parse_with(json, {151424, 65536, true});
}

}  // namespace

Family glm4_moe_family() {
  return {
      "glm4_moe",
      parse,
      write_sparse_by<sparse_keys>,
      kGroupedSparseRows,
      "n_shared_experts"};
}

Family glm4v_moe_family() {
  return {
      "glm4v_moe_text",
      parse_seeing,
      write_sparse_by<sparse_keys>,
      kGroupedSparseRows,
      "n_shared_experts"};
}

}  // namespace fettle::model
