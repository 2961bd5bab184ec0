// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_mamba.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "model/family/weight_table.h"
#include "model/layers/layer_state.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;

namespace {

const char* const kHybrid = "granitemoehybrid";

void refuses(const Json& changes, const std::string& part) {
  CAPTURE(changes.dump());
  CHECK_THROWS_WITH(sample(kHybrid, changes), Catch::Matchers::Contains(part));
}

}  // namespace

TEST_CASE("Granite 4 is Mamba-2 and some attention without positions") {
  const ModelConfig config = sample(kHybrid);
  CHECK(config.layers[0].mixer == MixerKind::kMamba);
  CHECK(config.layers[1].mixer == MixerKind::kAttention);
  CHECK(config.attention().rope.dim == 0);
  CHECK(config.mamba.inner_size() == 16);
  CHECK(config.mamba.channels() == 16 + 2 * 2 * 3);
  CHECK(config.mamba.least_step == 0);
  CHECK(std::isinf(config.mamba.most_step));
  CHECK(config.layers[0].shared_width == 5);
}

TEST_CASE("other spellings of Granite 4 give the same mixers") {
  const ModelConfig old = sample(
      kHybrid,
      {{"layer_types", {"mamba", "attention"}},
       {"mamba_d_head", "auto"},
       {"time_step_limit", {0.0, {{"__float__", "Infinity"}}}}});
  CHECK((old.layers == sample(kHybrid).layers));
  CHECK(old.mamba.head_dim == 4);
  CHECK(std::isinf(old.mamba.most_step));
  const ModelConfig all = sample(kHybrid, {{"layer_types", nullptr}});
  CHECK(all.layers[1].mixer == MixerKind::kMamba);
  const ModelConfig other = sample(
      kHybrid,
      {{"position_embedding_type", "rope"}, {"time_step_limit", {0.5, 2}}});
  CHECK(other.attention().rope.dim == 4);
  CHECK(other.mamba.least_step == 0.5);
  CHECK(other.mamba.most_step == 2);
}

TEST_CASE("weights of Mamba-2 have its sizes") {
  const ModelConfig config = sample(kHybrid);
  using Shape = std::vector<std::int64_t>;
  CHECK(weight_shape(config, {Role::kMambaIn, 0}) == Shape{48, 8});
  CHECK(weight_shape(config, {Role::kMambaOut, 0}) == Shape{8, 16});
  CHECK(weight_shape(config, {Role::kConvWeight, 0}) == Shape{28, 4});
  CHECK(role_info(Role::kConvBias).exists(config, config.layers[0]));
  CHECK_FALSE(role_info(Role::kMambaIn).exists(config, config.layers[1]));
  // One layer's keys and values, and the other's three inputs and its state.
  const std::int64_t attention = 2 * (4 + 4) * 2;
  CHECK(
      state_bytes(config, 10, at::kBFloat16) ==
      10 * attention + 3 * 28 * 2 + 16 * 3 * 4);
}

TEST_CASE("sizes of Mamba-2 that do not fit are refused") {
  refuses({{"mamba_n_groups", 3}}, "3 groups do not divide");
  refuses({{"mamba_d_head", 5}}, "4 heads of 5 are not 2 times 8");
  refuses({{"mamba_d_conv", 9}}, "mamba_d_conv");
  refuses({{"layer_types", {"mamba"}}}, "one item a layer");
  refuses({{"layer_types", {"mamba", "conv"}}}, "holds \"conv\"");
  refuses({{"num_local_experts", 0}}, "num_local_experts");
  refuses({{"position_embedding_type", "alibi"}}, "position_embedding_type");
}

TEST_CASE("limits of steps that are none are refused") {
  refuses({{"time_step_limit", {0.1}}}, "the least and the largest step");
  refuses({{"time_step_limit", {0.1, "inf"}}}, "which is no number");
  refuses({{"time_step_limit", {2, 1}}}, "steps rise");
  refuses({{"time_step_limit", {-1, 1}}}, "steps rise");
}
