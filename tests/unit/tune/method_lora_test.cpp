// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_lora.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "tiny_model.h"
#include "tune/method/option_checks.h"

using namespace fettle;
using namespace fettle::tune;
using Catch::Contains;

namespace {

model::ModelConfig lora_config() {
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path());
  return model::read_model_config(folder.path().string());
}

TuneOptions lora_options(const std::string& method = "lora") {
  TuneOptions options;
  options.method = method;
  options.seq_len = 16;
  return options;
}

}  // namespace

TEST_CASE("what lora is told to stand beside is checked by name") {
  const model::ModelConfig config = lora_config();
  CHECK_NOTHROW(check_options(lora_options(), config));
  for (const char* targets : {"", "expert", "experts,", ",experts", "all"}) {
    TuneOptions options = lora_options();
    options.lora_targets = targets;
    CHECK_THROWS_WITH(
        check_options(options, config), Contains("[tune] lora_targets:"));
  }
  TuneOptions options = lora_options();
  options.rank = 0;
  CHECK_THROWS_WITH(check_options(options, config), Contains("rank"));
  options = lora_options();
  options.lora_alpha = 0.0;
  CHECK_THROWS_WITH(check_options(options, config), Contains("lora_alpha"));
  options = lora_options("usaf");
  options.rank = 4;
  CHECK_THROWS_WITH(
      check_options(options, config), Contains("a method that reads it"));
}

TEST_CASE("lora is joined with methods that train other weights") {
  const model::ModelConfig config = lora_config();
  TuneOptions options = lora_options("usaf+lora");
  CHECK_THROWS_WITH(
      check_options(options, config),
      Contains("usaf") && Contains("lora") && Contains("expert_gate"));
  options.lora_targets = "attention,dense";
  CHECK_NOTHROW(check_options(options, config));
  CHECK_NOTHROW(check_options(lora_options("lora+router"), config));
}

TEST_CASE("the memory of pairs counts 16 bytes a value and the sums") {
  const model::ModelConfig config = lora_config();
  TuneOptions options = lora_options();
  options.rank = 2;
  options.lora_targets = "attention";
  // q [16, 16], k and v [8, 16], o [16, 16] in each of three layers.
  const std::int64_t rows = 16 + 8 + 8 + 16;
  const std::int64_t pairs = 2 * (rows + 4 * 16);
  const std::int64_t weights = rows * 16;
  CHECK(
      part_bytes(options, config, at::kCPU).ram ==
      3 * (16 * pairs + 8 * (rows + 4 * 2)) + 8 * weights + 8 * pairs);
  CHECK(lora_graph_bytes(options, config) == 3 * 4 * weights);
  // Gate, up and down [12, 16] of one layer, whose gradients are formed.
  options.lora_targets = "dense";
  CHECK(
      part_bytes(options, config, at::kCPU).ram ==
      3 * (16 * 2 * (12 + 16) + 8 * (12 + 2) + (8 + 8) * 12 * 16 +
           8 * 2 * (12 + 16)));
  CHECK(lora_graph_bytes(lora_options("usaf"), config) == 0);
}
