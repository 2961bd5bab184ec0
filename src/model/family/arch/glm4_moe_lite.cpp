// SPDX-License-Identifier: Apache-2.0
// GLM-4.7-Flash: DeepSeek-V3's layers, of which a list may say which are dense.
// Source: transformers 5.17, models/glm4_moe_lite.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_mla.h"
#include "model/family/config_sparse.h"

namespace fettle::model {
namespace {

SparseKeys sparse_keys() {
  return {
      .experts =
          {{"n_routed_experts", "num_experts", "num_local_experts"},
           64,
           "moe_intermediate_size",
           1536,
           4},
      .shared = "n_shared_experts",
      .default_dense_width = 10240};
}

std::vector<bool> sparse_layers(const JsonObject& json, std::int64_t layers) {
  const std::vector<bool> leading = sparse_after_leading(json, 1, layers);
  const std::vector<bool> listed = sparse_by_types(json, leading);
  if (json.has("first_k_dense_replace") && listed != leading) {
    json.refuse(
        "mlp_layer_types",
        "names other layers dense than 'first_k_dense_replace' does");
  }
  return listed;
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 154880,
       .hidden_size = 2048,
       .layers = 47,
       .heads = 20,
       .kv_heads = {},
       .max_position = 202752,
       .norm_eps = 1e-5,
       .eos_token_ids = {1}});
  parse_mla(
      json,
      {.q_lora_rank = 768, .qk_nope_head_dim = 192, .v_head_dim = 256},
      config);
  if (!read_flag(json, "rope_interleave", true)) {
    config.attention().rope.pairing = RopePairing::kHalf;
  }
  parse_corrected_router(json, {.scale = 1.8}, config.router);
  require_value(json, "moe_layer_freq", 1);
  require_value(json, "sliding_window", nullptr);
  place_experts(
      json, sparse_keys(), sparse_layers(json, config.num_layers()), config);
  check_layer_types(json, config);
  return config;
}

}  // namespace

Family glm4_moe_lite_family() {
  return {
      "glm4_moe_lite",
      parse,
      write_sparse_by<sparse_keys>,
      kLatentSparseRows,
      "n_shared_experts"};
}

}  // namespace fettle::model
