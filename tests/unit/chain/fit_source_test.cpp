// SPDX-License-Identifier: Apache-2.0
#include "chain/fit_source.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "../artifact/tiny_model.h"
#include "artifact/model_writer.h"
#include "core/error.h"
#include "planned_folder.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::TinyModel;
using model::Role;
using testing::PlannedFolder;

std::int64_t stored_bytes(const FitSource& source) {
  std::int64_t bytes = 0;
  for (const auto& id : model::model_weights(source.config())) {
    bytes += source.stored_bytes(id);
  }
  return bytes;
}

TEST_CASE("config.json alone tells the bytes that the weights have") {
  const TinyModel tiny({.type = at::kBFloat16});
  const FitSource whole(tiny.path());
  REQUIRE(whole.reader() != nullptr);
  REQUIRE(whole.assumed().empty());
  std::filesystem::remove(tiny.path() / "model.safetensors");
  const FitSource alone(tiny.path());
  REQUIRE(alone.reader() == nullptr);
  CHECK(alone.assumed().size() == 1);
  CHECK(stored_bytes(alone) == stored_bytes(whole));
  CHECK(stored_bytes(whole) == artifact::stored_size(*whole.reader()).bytes);
  // Two layers alike.
  REQUIRE(alone.kinds().size() == 1);
  CHECK(alone.kinds()[0].count == 2);
  CHECK(whole.kinds().size() == 1);
}

TEST_CASE("An index without its shards tells what is carried") {
  const PlannedFolder folder("qwen3_moe", {{"dtype", "float16"}});
  const std::int64_t own = stored_bytes(FitSource(folder.path()));
  std::ofstream(folder.path() / "model.safetensors.index.json") << Json{
      {"metadata", {{"total_size", own + 1000}}},
      {"weight_map", {{"a", "model-1.safetensors"}}}};
  const FitSource source(folder.path());
  CHECK(source.reader() == nullptr);
  CHECK(source.carried_bytes() == 1000);
  CHECK_THAT(source.assumed().front(), Contains("float16"));
}

TEST_CASE("Stored forms are taken from config.json") {
  SECTION("fp8") {
    const PlannedFolder folder(
        "qwen3_moe",
        {{"quantization_config",
          {{"quant_method", "fp8"}, {"weight_block_size", {128, 64}}}}});
    const FitSource source(folder.path());
    // [512, 256] codes and a scale for each of 4 x 4 blocks.
    CHECK(source.stored_bytes({Role::kExpertGate, 0, 0}) == 512 * 256 + 64);
    CHECK(source.stored_bytes({Role::kRouter, 0}) == 8 * 256 * 2);
    CHECK(source.block_unit() == 128);
  }
  SECTION("mxfp4") {
    const PlannedFolder folder(
        "gpt_oss", {{"quantization_config", {{"quant_method", "mxfp4"}}}});
    const FitSource source(folder.path());
    CHECK(source.stored_bytes({Role::kExpertGate, 0, 0}) == 512 * (128 + 8));
    CHECK(source.stored_bytes({Role::kQProj, 0}) == 256 * 256 * 2);
  }
  SECTION("gptq") {
    const PlannedFolder folder(
        "qwen3_moe",
        {{"quantization_config",
          {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}}}});
    const FitSource source(folder.path());
    CHECK(
        source.stored_bytes({Role::kExpertGate, 0, 0}) == 512 * (128 + 4 * 2));
    CHECK(source.block_unit() == 1);
  }
  SECTION("packed by Fettle") {
    const PlannedFolder folder(
        "qwen3_moe",
        {{"quantization_config", {{"quant_method", "fettle"}, {"format", 1}}}});
    CHECK_THAT(FitSource(folder.path()).assumed().front(), Contains("packed"));
  }
}

TEST_CASE("Parts whose size config.json does not tell are named") {
  const PlannedFolder folder("qwen3_moe", {{"num_nextn_predict_layers", 1}});
  CHECK_THAT(
      FitSource(folder.path()).assumed().back(),
      Contains("predict further tokens"));
}

TEST_CASE("A folder without config.json is refused for what it is") {
  const TemporaryFolder empty;
  REQUIRE_THROWS_AS(FitSource(empty.path()), UserError);
}

}  // namespace
}  // namespace fettle::chain
