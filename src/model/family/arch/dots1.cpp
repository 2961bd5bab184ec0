// SPDX-License-Identifier: Apache-2.0
// dots.llm1: Qwen3's attention and DeepSeek-V3's sparse layers. Source:
// transformers 5.17, models/dots1.
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
           {},
           "moe_intermediate_size",
           1408,
           {}},
      .shared = "n_shared_experts",
      .default_shared = 0,
      .default_dense_width = 10944};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 152064,
       .hidden_size = 4608,
       .layers = 62,
       .heads = 32,
       .kv_heads = {},
       .max_position = 2048});
  parse_gqa(json, {}, config);
  config.attention().qkv_bias = json.boolean_or("attention_bias", false);
  config.attention().o_bias = config.attention().qkv_bias;
  config.attention().qk_norm = QkNorm::kHead;
  parse_corrected_router(json, {.renormalize = false}, config.router);
  require_value(json, "moe_layer_freq", 1);
  place_experts(
      json,
      sparse_keys(),
      sparse_after_leading(json, 0, config.num_layers()),
      config);
  parse_windows(
      json,
      parse_window(json, 4096),
      [last = read_integer(json, {{"max_window_layers"}, 62, 0})](
          std::int64_t l) { return l >= last; },
      config);
  return config;
}

}  // namespace

Family dots1_family() {
  return {
      "dots1",
      parse,
      write_sparse_by<sparse_keys>,
      kGroupedSparseRows,
      "n_shared_experts"};
}

}  // namespace fettle::model
