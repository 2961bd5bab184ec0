// SPDX-License-Identifier: Apache-2.0
// Writing config.json back: stock keys while they can say it, "fettle" beyond.
#include <catch2/catch.hpp>

#include "core/error.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;
using fettle::model::testing::sample_json;

namespace {

const std::vector<std::string> kFamilies = {
    "qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2"};

void set_experts(
    ModelConfig& config,
    const std::vector<std::int64_t>& widths,
    std::int64_t top_k) {
  for (LayerConfig& layer : config.layers) {
    if (!layer.sparse) continue;
    layer.expert_widths = widths;
    layer.top_k = top_k;
  }
}

}  // namespace

TEST_CASE("an unchanged configuration is written as it was read") {
  for (const std::string& family : kFamilies) {
    CHECK(config_json(sample(family)) == sample_json(family));
  }
}

TEST_CASE("uniform experts go under the family's own keys") {
  for (const std::string& family : kFamilies) {
    ModelConfig config = sample(family);
    set_experts(config, {4, 4, 4}, 1);
    const Json json = config_json(config);
    INFO(json.dump());
    CHECK_FALSE(json.contains("fettle"));
    CHECK(json["num_experts_per_tok"] == 1);
    CHECK((parse_model_config(json, "f").layers == config.layers));
  }
  // DeepSeek tells the shared expert's width, 2 x 6, in units of the experts'.
  ModelConfig config = sample("deepseek_v2");
  set_experts(config, {4, 4}, 2);
  CHECK(config_json(config)["n_shared_experts"] == 3);
  CHECK(config_json(config)["moe_intermediate_size"] == 4);
}

TEST_CASE("every spelling in the file is kept up to date") {
  ModelConfig config = sample(
      "qwen3_moe",
      {{"num_local_experts", 4}, {"num_experts", 4}, {"dtype", "float16"}});
  set_experts(config, {6, 6}, 2);
  const Json json = config_json(config);
  CHECK(json["num_experts"] == 2);
  CHECK(json["num_local_experts"] == 2);
  CHECK(json["dtype"] == "float16");
}

TEST_CASE("what stock keys can't say goes under \"fettle\" and comes back") {
  for (const std::string& family : kFamilies) {
    ModelConfig config = sample(family);
    config.layers[1].expert_widths = {3, 0, 5};
    config.layers[1].top_k = 1;
    config.layers[1].has_constants = true;
    const Json json = config_json(config);
    const ModelConfig back = parse_model_config(json, "f");
    CHECK((back.layers == config.layers));
    CHECK(back.layers[1].total_width() == 8);
    CHECK(json["num_experts_per_tok"] == 2);
    CHECK(json["fettle"]["format"] == 1);
    CHECK(config_json(back) == json);
  }
  CHECK(config_json([] {
          ModelConfig dense_first = sample("deepseek_v2");
          dense_first.layers[1].expert_widths = {1, 2};
          return dense_first;
        }())["fettle"]["layers"][0]
            .is_null());
}

TEST_CASE("uniform shapes that stock keys can't say stay under \"fettle\"") {
  ModelConfig zero = sample("mixtral");
  set_experts(zero, {0, 0}, 1);
  CHECK(config_json(zero).contains("fettle"));
  ModelConfig constants = sample("mixtral");
  constants.layers[0].has_constants = true;
  CHECK(config_json(constants).contains("fettle"));
  ModelConfig indivisible = sample("deepseek_v2");  // 12 / 5
  set_experts(indivisible, {5, 5}, 1);
  CHECK(config_json(indivisible).contains("fettle"));
  CHECK(
      parse_model_config(config_json(indivisible), "f")
          .layers[1]
          .shared_width == 12);
}

TEST_CASE("a ragged model made uniform again drops the key") {
  ModelConfig config = sample("olmoe");
  config.layers[0].expert_widths = {1, 2, 3, 4};
  config = parse_model_config(config_json(config), "f");
  set_experts(config, {2, 2}, 2);
  const Json json = config_json(config);
  CHECK_FALSE(json.contains("fettle"));
  CHECK(json["intermediate_size"] == 2);
  CHECK(json["num_experts"] == 2);
}

TEST_CASE("condensers and router biases take format 2, and come back") {
  for (const std::string& family : kFamilies) {
    ModelConfig config = sample(family);
    config.layers[1].condensers = {1, 3};
    const Json listed = config_json(config);
    CHECK(listed["fettle"]["format"] == 2);
    CHECK(listed["fettle"]["layers"][1]["condensers"] == Json({1, 3}));
    CHECK((parse_model_config(listed, "f").layers == config.layers));
    config.layers[1].condensers.clear();
    config.layers[1].router_bias = true;
    const Json biased = config_json(config);
    CHECK(biased["fettle"]["layers"][1]["router_bias"] == true);
    const ModelConfig back = parse_model_config(biased, "f");
    CHECK((back.layers == config.layers));
    CHECK(config_json(back) == biased);
    config.layers[1].router_bias = false;
    CHECK(config_json(config) == sample_json(family));
  }
}

TEST_CASE("condensers that can't be are refused") {
  const auto refused = [](const std::string& family,
                          const Json& changes,
                          const Json& layer,
                          const std::string& text) {
    Json all = changes;
    all["fettle"] = {{"format", 2}, {"layers", {layer, layer}}};
    INFO(all.dump());
    CHECK_THROWS_AS(sample(family, all), UserError);
    CHECK_THROWS_WITH(sample(family, all), Catch::Contains(text));
  };
  const auto layer = [](const Json& condensers, int top_k = 2) {
    return Json{
        {"top_k", top_k},
        {"expert_widths", {6, 6, 6, 6}},
        {"condensers", condensers}};
  };
  const Json none = Json::object();
  refused("mixtral", none, layer({4}), "below 4, found 4 after -1");
  refused("mixtral", none, layer({1, 1}), "found 1 after 1");
  refused("mixtral", none, layer({2, 0}), "found 0 after 2");
  refused("mixtral", none, layer({-1}), "holds -1");
  refused("mixtral", none, layer({0, 1, 2}), "at most 'top_k', 2, found 3");
  Json biased = layer(Json::array());
  biased["router_bias"] = 1;
  refused("mixtral", none, biased, "'router_bias'");
  Json old = {{"format", 1}, {"layers", {layer({1}), layer({1})}}};
  CHECK_THROWS_WITH(
      sample("mixtral", {{"fettle", old}}),
      Catch::Contains("'condensers' is not known"));

  // Two groups of two experts, one of them open to a token.
  const Json groups = {
      {"first_k_dense_replace", 0},
      {"topk_method", "group_limited_greedy"},
      {"n_group", 2},
      {"topk_group", 1}};
  refused("deepseek_v2", groups, layer({0}, 3), "can reach only 2 experts");
  Json open = groups;
  open["fettle"] = {
      {"format", 2}, {"layers", {layer({0, 2}, 3), layer({0, 2}, 3)}}};
  CHECK_NOTHROW(sample("deepseek_v2", open));
}

TEST_CASE("a damaged \"fettle\" key is refused") {
  const Json good = {
      {"top_k", 1}, {"expert_widths", {1, 0}}, {"has_constants", false}};
  const auto with = [&](const std::string& key, const Json& value) {
    Json layer = good;
    layer[key] = value;
    return Json{{"format", 1}, {"layers", {good, layer}}};
  };
  const auto refused = [](const Json& fettle, const std::string& text) {
    INFO(fettle.dump());
    CHECK_THROWS_AS(sample("mixtral", {{"fettle", fettle}}), UserError);
    CHECK_THROWS_WITH(
        sample("mixtral", {{"fettle", fettle}}), Catch::Contains(text));
  };
  CHECK_NOTHROW(sample("mixtral", {{"fettle", with("top_k", 2)}}));
  refused(3, "JSON object");
  refused({{"format", 3}, {"layers", {good, good}}}, "'format' is 3");
  refused({{"format", 1}, {"layers", {good}}}, "a list of 2 items");
  refused({{"format", 1}, {"layers", {good, nullptr}}}, "object for layer 1");
  refused({{"format", 1}, {"layer", {}}}, "'layer' is not known");
  refused({{"format", 1}}, "'layers' is missing");
  refused(with("expert_widths", Json::array()), "at least one width");
  refused(with("expert_widths", {1, -1}), "'expert_widths' holds -1");
  refused(with("expert_widths", {1, 1.5}), "'expert_widths' holds 1.5");
  refused(with("top_k", 3), "'top_k' is 3");
  refused(with("bits", 4), "'bits' is not known");
  CHECK_THROWS_WITH(
      sample(
          "deepseek_v2",
          {{"fettle", {{"format", 1}, {"layers", {good, good}}}}}),
      Catch::Contains("null for layer 0"));
}

TEST_CASE("a file that can't be read is named") {
  CHECK_THROWS_AS(read_model_config("/nonexistent"), UserError);
  CHECK_THROWS_WITH(
      read_model_config("/nonexistent"),
      Catch::Contains("/nonexistent/config.json"));
}
