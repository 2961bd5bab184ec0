// SPDX-License-Identifier: Apache-2.0
// DeepSeek-V2 and V2-Lite: multi-head latent attention, leading dense layers,
// plain shared experts (stored as one MLP), and softmax routing over all
// experts or within the best groups. Source: transformers 5.17,
// models/deepseek_v2.
#include <fmt/format.h>

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
           1407,
           {}},
      .shared = "n_shared_experts",
      .default_shared = 2,
      .default_dense_width = 11008};
}

void parse_router(const JsonObject& json, RouterConfig& router) {
  require_value(json, "scoring_func", "softmax");
  // With it the released code gives other outputs than transformers.
  require_value(json, "norm_topk_prob", false);
  router.scale = read_number(json, {"routed_scaling_factor", 1.0});
  const std::string method = json.string_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    router.groups = read_integer(json, {{"n_group"}, {}});
    router.topk_groups =
        read_integer(json, {{"topk_group"}, {}, 1, router.groups});
  } else if (method != "greedy") {
    json.refuse(
        "topk_method",
        fmt::format(
            "is '{}'; Fettle knows greedy and group_limited_greedy", method));
  }
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 102400,
       .hidden_size = 4096,
       .layers = 32,
       .heads = 32,
       .kv_heads = {},
       .max_position = 2048,
       .eos_token_ids = {2}});
  parse_mla(json, {.q_lora_rank = 1536}, config);
  parse_router(json, config.router);
  require_value(json, "moe_layer_freq", 1);
  require_value(json, "sliding_window", nullptr);
  place_experts(
      json,
      sparse_keys(),
      sparse_after_leading(json, 0, config.num_layers()),
      config);
  check_layer_types(json, config);
  return config;
}

}  // namespace

Family deepseek_v2_family() {
  return {
      "deepseek_v2",
      parse,
      write_sparse_by<sparse_keys>,
      kLatentSparseRows,
      "n_shared_experts"};
}

}  // namespace fettle::model
