// SPDX-License-Identifier: Apache-2.0
#include "chain/engine_needs.h"

#include <catch2/catch.hpp>

#include "../artifact/tiny_model.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using Names = std::vector<std::string>;

model::ModelConfig config_of(std::int64_t hidden, std::int64_t width) {
  const fettle::testing::TinyModel tiny;
  model::ModelConfig config = model::ModelReader(tiny.path()).config();
  config.hidden_size = hidden;
  for (model::LayerConfig& layer : config.layers) {
    for (std::int64_t& own : layer.expert_widths) own = width;
  }
  return config;
}

TEST_CASE("Fettle takes any plan, others one width and alike schemes") {
  const auto config = config_of(256, 384);
  const EngineNeeds own = needs_of(find_engine("fettle"), config, "int3");
  REQUIRE(own.rules.widths == Rules::Widths::kFree);
  REQUIRE(own.rules.multiple == 1);
  REQUIRE(own.group == 0);
  REQUIRE(own.schemes == Names{"keep", "int8", "int4", "int3"});
  REQUIRE(own.parts.back() == "head");
  for (const char* name : {"llama.cpp", "vllm", "transformers"}) {
    const EngineNeeds needs = needs_of(find_engine(name), config, "");
    CAPTURE(name);
    REQUIRE(needs.rules.widths == Rules::Widths::kUniform);
    REQUIRE(needs.rules.schemes == Rules::Schemes::kUniform);
    REQUIRE(needs.schemes == Names{"keep", "int8", "int4"});
    REQUIRE(needs.rules.multiple % needs.group == 0);
    REQUIRE(384 % needs.rules.multiple == 0);
    REQUIRE(needs.rules.min_width == needs.rules.multiple);
  }
}

TEST_CASE("Groups divide the rows, and fewer bits take llama.cpp wider ones") {
  const Engine& llama = find_engine("llama.cpp");
  const auto config = config_of(256, 768);
  REQUIRE(needs_of(llama, config, "").group == 32);
  const EngineNeeds wide = needs_of(llama, config, "int2");
  REQUIRE(wide.group == 256);
  REQUIRE(wide.rules.multiple == 256);
  REQUIRE(wide.schemes == Names{"keep", "int8", "int4", "int3", "int2"});
  const Engine& vllm = find_engine("vllm");
  REQUIRE(needs_of(vllm, config, "").group == 128);
  REQUIRE(needs_of(vllm, config_of(128, 96), "").group == 32);
  REQUIRE_THROWS_WITH(
      needs_of(vllm, config, "int2"), Contains("has no place for int2"));
}

TEST_CASE("Experts in stacks are cut, not rounded, for loaders of words") {
  auto config = config_of(256, 384);
  config.family = "gpt_oss";
  const auto schemes = [&](const char* engine) {
    return needs_of(find_engine(engine), config, "").schemes;
  };
  REQUIRE(schemes("transformers") == Names{"keep"});
  REQUIRE(schemes("vllm") == Names{"keep"});
  REQUIRE(schemes("llama.cpp") == Names{"keep", "int8", "int4"});
}

}  // namespace
}  // namespace fettle::chain
