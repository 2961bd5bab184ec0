// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "core/error.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;

namespace {

RopeConfig rope(Json options, Json outside = Json::object()) {
  outside["rope_scaling"] = std::move(options);
  return sample("mixtral", outside).attention().rope;
}

}  // namespace

TEST_CASE("rotary options of every kind") {
  CHECK(rope(nullptr).type == "default");
  CHECK(rope({{"rope_type", "dynamic"}, {"factor", 2}}).factor == 2.0);

  const RopeConfig yarn = rope(
      {{"type", "yarn"},
       {"factor", 4.0},
       {"original_max_position_embeddings", 16},
       {"mscale", 0.7},
       {"mscale_all_dim", 0.0},
       {"beta_fast", nullptr}});
  CHECK(yarn.original_max_position == 16);
  CHECK(*yarn.mscale == 0.7);
  CHECK_FALSE(yarn.mscale_all_dim);
  CHECK(yarn.beta_fast == 32.0);
  CHECK(yarn.beta_slow == 1.0);
  CHECK(yarn.truncate);

  const RopeConfig llama3 = rope(
      {{"rope_type", "llama3"},
       {"factor", 8.0},
       {"low_freq_factor", 1.0},
       {"high_freq_factor", 4.0},
       {"original_max_position_embeddings", 16}});
  CHECK(llama3.high_freq_factor == 4.0);
}

TEST_CASE("options that change nothing about text are passed over") {
  const RopeConfig yarn = rope(
      {{"type", "yarn"},
       {"factor", 4.0},
       {"finetuned", true},
       {"original_max_position_embeddings", 16}});
  CHECK(yarn.factor == 4.0);
  const Json sections = {
      {"type", "mrope"},
      {"mrope_section", {1, 1, 2}},
      {"mrope_interleaved", true}};
  CHECK(rope(sections).type == "default");
  CHECK(
      sample("mixtral", {{"hidden_act", "swish"}}).activation ==
      Activation::kSilu);
  CHECK(
      sample("mixtral", {{"hidden_act", "gelu_pytorch_tanh"}}).activation ==
      Activation::kGeluTanh);
  CHECK_THROWS_WITH(
      sample("mixtral", {{"hidden_act", "gelu"}}),
      Catch::Contains("'hidden_act' is \"gelu\""));
}

TEST_CASE("lengths that are not said are inferred as transformers does") {
  const RopeConfig yarn = rope(
      {{"rope_type", "yarn"}, {"factor", nullptr}},
      {{"original_max_position_embeddings", 16}});
  CHECK(yarn.original_max_position == 16);
  CHECK(yarn.factor == 4.0);
  CHECK(
      rope({{"rope_type", "yarn"}, {"factor", 2.0}}).original_max_position ==
      64);
  const RopeConfig longrope = rope(
      {{"rope_type", "longrope"},
       {"short_factor", {1.0, 1.5}},
       {"long_factor", {2.0, 2.5}},
       {"original_max_position_embeddings", 32}});
  CHECK(longrope.factor == 2.0);
  CHECK(longrope.long_factor == std::vector<double>{2.0, 2.5});
}

TEST_CASE("theta: beside the options, among them, or the family's own") {
  CHECK(rope(nullptr, {{"rope_theta", 500}}).theta == 500.0);
  CHECK(
      rope(
          {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 7.0}},
          {{"rope_theta", 500}})
          .theta == 7.0);
  CHECK(rope({{"rope_type", "linear"}, {"factor", 2}}).theta == 1e6);
}

TEST_CASE("MLA's softmax is corrected for YaRN") {
  const Json scaling = {
      {"type", "yarn"},
      {"factor", 40},
      {"original_max_position_embeddings", 16},
      {"mscale", 0.707},
      {"mscale_all_dim", 0.707}};
  const double plain = sample("deepseek_v2").attention().softmax_scale;
  CHECK(plain == Approx(1 / std::sqrt(6.0)));
  const double m = 0.1 * 0.707 * std::log(40.0) + 1.0;
  CHECK(
      sample("deepseek_v2", {{"rope_scaling", scaling}})
          .attention()
          .softmax_scale == Approx(plain * m * m));
}

TEST_CASE("rotary options that are unknown or impossible are named") {
  const auto refused = [](const Json& options, const std::string& text) {
    CHECK_THROWS_WITH(rope(options), Catch::Contains(text));
    CHECK_THROWS_AS(rope(options), UserError);
  };
  refused({{"type", "su"}}, "'type' is 'su'");
  refused({{"rope_type", "axial"}}, "'axial'");
  refused({{"rope_type", "linear"}}, "'factor' is missing");
  refused({{"rope_type", "linear"}, {"factor", 0}}, "'factor' is 0");
  refused({{"rope_type", "default"}, {"sections", {1}}}, "'sections'");
  refused({{"full_attention", {{"rope_type", "default"}}}}, "'full_attention'");
  refused({{"partial_rotary_factor", 0.5}}, "'partial_rotary_factor' is 0.5");
  refused(
      {{"rope_type", "llama3"},
       {"factor", 2},
       {"low_freq_factor", 4},
       {"high_freq_factor", 4}},
      "'high_freq_factor' is 4");
  refused(
      {{"rope_type", "longrope"},
       {"short_factor", {1.0}},
       {"long_factor", {1}}},
      "'short_factor' must be a list of 2");
  refused(
      {{"rope_type", "yarn"}, {"factor", 2}, {"rope_theta", 1}},
      "'rope_theta' is 1");
  refused(
      {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", -1}},
      "'rope_theta' is -1");
  CHECK_THROWS_WITH(
      sample(
          "mixtral",
          {{"head_dim", 2},
           {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2}}}}),
      Catch::Contains("wider than 2"));
}
