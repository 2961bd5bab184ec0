// SPDX-License-Identifier: Apache-2.0
// That PEFT itself loads what is written: tests/hf/test_lora.py.
#include "tune/adapter/peft_adapter.h"

#include <catch2/catch.hpp>

#include "../model/sample_config.h"
#include "artifact/tensor_file.h"
#include "core/error.h"
#include "tiny_model.h"
#include "tune/adapter/adapter.h"
#include "tune/low_rank/low_rank.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

TuneOptions peft_options(const std::string& method = "lora") {
  TuneOptions options;
  options.method = method;
  options.router = "frozen";
  return options;
}

// The tiny model's, made one that stock formats could hold.
model::ModelConfig even_config(const fs::path& folder) {
  model::ModelConfig config = model::read_model_config(folder.string());
  for (model::LayerConfig& layer : config.layers) {
    if (layer.sparse) layer.expert_widths = {6, 6, 6, 6};
  }
  return config;
}

}  // namespace

TEST_CASE("what a PEFT adapter can't hold is refused by name") {
  const TemporaryFolder folder;
  write_tiny_model(folder.path());
  const model::ModelConfig even = even_config(folder.path());
  CHECK_NOTHROW(check_peft(peft_options(), even));
  CHECK_THROWS_WITH(
      check_peft(peft_options("lora+usaf"), even), Contains("also usaf"));
  TuneOptions routed = peft_options();
  routed.router = "topk";
  CHECK_THROWS_WITH(check_peft(routed, even), Contains("frozen routers"));
  CHECK_THROWS_WITH(
      check_peft(peft_options(), model::testing::sample("gpt_oss")),
      Contains("found them in turns"));

  TuneOptions experts = peft_options();
  experts.lora_targets = "experts";
  const model::ModelConfig mamba = model::testing::sample("nemotron_h");
  CHECK_NOTHROW(check_peft(experts, mamba));
  CHECK_THROWS_WITH(
      check_peft(peft_options(), mamba),
      Contains("beside 'out_proj' in models of type nemotron_h"));

  const auto refused = [&](const char* why, const auto& change) {
    model::ModelConfig config = even;
    change(config.layers[2]);
    CHECK_THROWS_WITH(
        check_peft(peft_options(), config),
        Contains(why) && Contains("layer 2"));
  };
  using Layer = model::LayerConfig;
  refused("width 6", [](Layer& layer) { layer.expert_widths[3] = 4; });
  refused("4 experts", [](Layer& layer) { layer.expert_widths = {6, 6}; });
  refused("constants", [](Layer& layer) { layer.has_constants = true; });
  refused("condensers", [](Layer& layer) { layer.condensers = {1}; });
  refused("router bias", [](Layer& layer) { layer.router_bias = true; });

  TuneOptions shared = peft_options();
  shared.lora_targets = "experts,shared";
  const model::ModelConfig joined = model::testing::sample("granitemoeshared");
  CHECK_NOTHROW(check_peft(peft_options(), joined));
  CHECK_THROWS_WITH(
      check_peft(shared, joined),
      Contains("gate and up in matrices of their own"));
  CHECK_NOTHROW(check_peft(shared, model::testing::sample("granitemoe")));
}

TEST_CASE("pairs are laid out as PEFT reads them") {
  const TemporaryFolder folder;
  const fs::path base = folder.path() / "base";
  write_tiny_model(base);
  const model::ModelReader reader(base);
  std::vector<std::unique_ptr<TrainablePart>> parts;
  parts.push_back(std::make_unique<LowRank>(
      reader,
      at::kCPU,
      LowRankOptions{.kinds = {.attention = true, .dense = true}, .rank = 2}));
  artifact::TensorMap own;
  parts[0]->save_adapter(own);
  const fs::path adapter = folder.path() / "adapter";
  fs::create_directories(adapter);
  save_adapter(
      adapter,
      parts,
      {"lora",
       model_fingerprint(reader),
       {{"rank", 2}, {"lora_alpha", 32.0}},
       Json::object()});
  const fs::path out = folder.path() / "peft";
  write_peft_adapter(reader, adapter, out);
  const auto written =
      artifact::load_tensors(out / "adapter_model.safetensors").tensors;
  CHECK(written.size() == own.size() - 1);  // all but the scale
  const std::string q = "base_model.model.model.layers.1.self_attn.q_proj.";
  CHECK(written.at(q + "lora_A.weight")
            .equal(own.at("lora.layers.1.q_proj.right")));
  CHECK(written.at(q + "lora_B.weight")
            .equal(own.at("lora.layers.1.q_proj.left")));
  const std::string down = "base_model.model.model.layers.0.mlp.down_proj.";
  CHECK(written.at(down + "lora_A.weight")
            .equal(own.at("lora.layers.0.dense_down.left").t()));
  CHECK(written.at(down + "lora_B.weight")
            .equal(own.at("lora.layers.0.dense_down.right").t()));
  const Json config = read_json(out / "adapter_config.json", "test");
  CHECK(config["r"] == 2);
  CHECK(config["lora_alpha"] == 32.0);
  CHECK(config["target_modules"].size() == 4);
  CHECK(
      config["target_parameters"] == Json{
                                         "mlp.down_proj.weight",
                                         "mlp.gate_proj.weight",
                                         "mlp.up_proj.weight"});
  CHECK_THROWS_WITH(
      write_peft_adapter(reader, adapter, out), Contains("exist"));
}
