// SPDX-License-Identifier: Apache-2.0
// A folder with no more than config.json, of a model large enough for blocks of
// 256 weights.
#pragma once

#include <fstream>
#include <string>

#include "../model/sample_config.h"
#include "../temporary_folder.h"
#include "core/json.h"

namespace fettle::chain::testing {

// hidden 256, 2 layers, 8 experts of width 512, top-2.
inline Json planned_json(const std::string& family) {
  Json json = model::testing::sample_json(family);
  json.update(
      {{"hidden_size", 256},
       {"vocab_size", 512},
       {"intermediate_size", 512},
       {"num_attention_heads", 8},
       {"num_key_value_heads", 4},
       {"head_dim", 32},
       {"max_position_embeddings", 4096}});
  for (const char* key :
       {"moe_intermediate_size",
        "shared_expert_intermediate_size",
        "shared_intermediate_size"}) {
    if (json.contains(key)) json[key] = 512;
  }
  for (const char* key :
       {"num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts"}) {
    if (json.contains(key)) json[key] = 8;
  }
  if (family == "qwen3_moe") json["norm_topk_prob"] = true;
  if (json.contains("kv_lora_rank")) {
    json.update(
        {{"num_key_value_heads", 8},
         {"kv_lora_rank", 64},
         {"qk_nope_head_dim", 32},
         {"qk_rope_head_dim", 32},
         {"v_head_dim", 32}});
    json.erase("head_dim");
  }
  return json;
}

class PlannedFolder {
 public:
  explicit PlannedFolder(
      const std::string& family, const Json& changes = Json::object()) {
    Json json = planned_json(family);
    json.update(changes);
    std::ofstream(path() / "config.json") << json.dump();
  }
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

}  // namespace fettle::chain::testing
