// SPDX-License-Identifier: Apache-2.0
#include "chain/engine.h"

#include <catch2/catch.hpp>

#include "../model/sample_config.h"
#include "core/error.h"
#include "model/layers/layer_state.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using model::testing::sample;

TEST_CASE("Fettle's own rules count what its layers keep") {
  const std::string family = GENERATE(
      "qwen3_moe",
      "deepseek_v2",
      "gpt_oss",
      "lfm2_moe",
      "qwen3_next",
      "granitemoehybrid",
      "gemma4_text");
  const model::ModelConfig config = sample(family);
  for (const std::int64_t tokens : {1, 10, 63}) {
    CHECK(
        conversation_bytes(config, own_state_rules(2), tokens) ==
        model::state_bytes(config, tokens, at::kBFloat16));
    CHECK(
        conversation_bytes(config, own_state_rules(4), tokens) ==
        model::state_bytes(config, tokens, at::kFloat));
  }
}

TEST_CASE("Programs keep latents, latents twice, or all heads") {
  // 2 layers, 2 heads of 4 + 2 keys and 3 values, latents of 4.
  const model::ModelConfig mla = sample("deepseek_v2");
  StateRules rules = own_state_rules(2);
  CHECK(conversation_bytes(mla, rules, 10) == 2 * 10 * (4 + 2) * 2);
  rules.latents = LatentCache::kTwice;
  CHECK(conversation_bytes(mla, rules, 10) == 2 * 10 * (4 + 2 + 4) * 2);
  rules.latents = LatentCache::kHeads;
  CHECK(conversation_bytes(mla, rules, 10) == 2 * 10 * 2 * (6 + 3) * 2);
}

TEST_CASE("Layers with a window keep no more than it where that is a rule") {
  // One layer of two has a window of 3; 2 heads of 4 keys and 4 values.
  const model::ModelConfig config = sample("gpt_oss");
  StateRules rules = own_state_rules(2);
  const std::int64_t token = 2 * (4 + 4) * 2;
  CHECK(conversation_bytes(config, rules, 20) == 2 * 20 * token);
  rules.beyond_window = 0;
  CHECK(conversation_bytes(config, rules, 20) == (20 + 3) * token);
  CHECK(conversation_bytes(config, rules, 2) == (2 + 2) * token);
  rules.beyond_window = 5;
  rules.token_unit = 16;
  CHECK(conversation_bytes(config, rules, 20) == (32 + 16) * token);
}

TEST_CASE("Engines are known or refused, and refuse what they can't run") {
  for (const std::string& name : engine_names()) {
    CHECK(find_engine(name).name == name);
    CHECK(find_engine(name).schemes.front().scheme == "keep");
  }
  REQUIRE_THROWS_WITH(
      find_engine("mlx"),
      Contains("expected one of fettle, llama.cpp, vllm, transformers"));
  const Engine& llama = find_engine("llama.cpp");
  REQUIRE_NOTHROW(
      require_engine(llama, sample("qwen3_moe", {{"norm_topk_prob", true}})));
  REQUIRE_THROWS_WITH(
      require_engine(llama, sample("qwen3_moe")),
      Contains("[fit] --engine llama.cpp: config.json: 'norm_topk_prob'"));
  REQUIRE_NOTHROW(require_engine(find_engine("vllm"), sample("qwen3_moe")));
}

}  // namespace
}  // namespace fettle::chain
