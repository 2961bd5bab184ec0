// SPDX-License-Identifier: Apache-2.0
// DeepSeek-V3, R1 and what has their shape (Moonlight, Kimi's text models):
// latent attention as in V2, and a sigmoid router whose choice a bias corrects.
// Source: transformers 5.17, models/deepseek_v3.
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
           256,
           "moe_intermediate_size",
           2048,
           8},
      .shared = "n_shared_experts",
      .default_dense_width = 18432};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 129280,
       .hidden_size = 7168,
       .layers = 61,
       .heads = 128,
       .kv_heads = {},
       .max_position = 4096,
       .eos_token_ids = {1}});
  parse_mla(json, {.q_lora_rank = 1536}, config);
  if (!read_flag(json, "rope_interleave", true)) {
    config.attention().rope.pairing = RopePairing::kHalf;
  }
  parse_corrected_router(
      json, {.groups = 8, .topk_groups = 4, .scale = 2.5}, config.router);
  require_value(json, "moe_layer_freq", 1);
  require_value(json, "sliding_window", nullptr);
  place_experts(
      json,
      sparse_keys(),
      sparse_after_leading(json, 3, config.num_layers()),
      config);
  check_layer_types(json, config);
  return config;
}

}  // namespace

Family deepseek_v3_family() {
  return {
      "deepseek_v3",
      parse,
      write_sparse_by<sparse_keys>,
      kLatentSparseRows,
      "n_shared_experts"};
}

}  // namespace fettle::model
