// SPDX-License-Identifier: Apache-2.0
// What a file of errors may hold, and what becomes of one that is damaged.
#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "calibration.h"
#include "core/error.h"
#include "io/file.h"
#include "quant/errors.h"

namespace fettle::quant {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using model::WeightId;

const Json kIdentity = {{"model", "abc"}, {"damping", 0.01}};

// Errors made up for each matrix of the model.
QuantErrors made_up(const model::ModelConfig& config) {
  QuantErrors errors{.identity = kIdentity, .tokens = 100};
  double number = 0.1;
  for (std::int64_t l = -1; l < config.num_layers(); ++l) {
    LayerErrors layer{.outputs = number * 1e30};
    for (const WeightId& id : measured_weights(config, l)) {
      const auto count = static_cast<std::int64_t>(layer.weights.size());
      number /= 3;
      layer.weights.push_back(
          {.id = id,
           .tokens = count,
           .energy = number,
           .options = {
               {parse_scheme("int2"), 40 + count, number / 7},
               {parse_scheme("ternary-coded"), 41, 0},
               {parse_scheme("keep"), 42, 1e-45}}});
    }
    errors.layers.push_back(std::move(layer));
  }
  return errors;
}

QuantErrors read(const Json& json, const model::ModelConfig& config) {
  return QuantErrors::from_json(json, config, kIdentity, "errors.json");
}

TEST_CASE("Errors come back from a file as they were") {
  const TinyModelOptions options =
      sample_options(GENERATE("qwen3_moe", "qwen2_moe", "deepseek_v2"));
  const model::ModelConfig config = tiny_config(options);
  QuantErrors errors = made_up(config);
  // A run that was killed leaves fewer layers.
  errors.layers.resize(GENERATE(0, 1, 2, 3));
  // As text, in which every double has to be whole.
  const Json json = Json::parse(errors.to_json().dump());
  const QuantErrors found = read(json, config);
  REQUIRE(found.identity == kIdentity);
  REQUIRE(found.tokens == 100);
  REQUIRE(found.layers.size() == errors.layers.size());
  for (std::size_t l = 0; l < errors.layers.size(); ++l) {
    REQUIRE(found.layers[l].outputs == errors.layers[l].outputs);
    REQUIRE(found.layers[l].weights.size() == errors.layers[l].weights.size());
    for (std::size_t w = 0; w < errors.layers[l].weights.size(); ++w) {
      const MeasuredWeight& was = errors.layers[l].weights[w];
      const MeasuredWeight& is = found.layers[l].weights[w];
      REQUIRE((is.id == was.id));
      REQUIRE(is.tokens == was.tokens);
      REQUIRE(is.energy == was.energy);
      REQUIRE(is.options.size() == 3);
      for (std::size_t o = 0; o < 3; ++o) {
        REQUIRE((is.options[o].scheme == was.options[o].scheme));
        REQUIRE(is.options[o].bytes == was.options[o].bytes);
        REQUIRE(is.options[o].error == was.options[o].error);
      }
    }
  }
}

// What is put at a place of the file, and what is said to it.
struct Damage {
  std::string place;
  Json value;
  std::string message;
};

const Json kHuge = 18446744073709551615ULL;

const std::vector<Damage> kOfTheFile = {
    {"/format", 2, "'format' expected 1, found 2"},
    {"/format", kHuge, "'format'"},
    {"/format", "1", "'format' must be an integer, found string"},
    {"/identity", "x", "expected a JSON object, found string"},
    {"/identity/damping", 1, "damping: expected 1"},
    {"/tokens", -1, "'tokens'"},
    {"/tokens", kHuge, "'tokens'"},
    {"/tokens", 100.5, "'tokens'"},
    {"/layers", "x", "'layers' expected a list"},
    {"/layers/3", Json::object(), "more layers than the model"}};

const std::vector<Damage> kOfALayer = {
    {"", nullptr, "layer 1: expected a JSON object, found null"},
    {"/outputs", -1e-9, "layer 1: 'outputs' expected 0, or a number"},
    {"/outputs", 1e300, "'outputs'"},
    {"/outputs", 1e-300, "'outputs'"},
    {"/outputs", "1", "'outputs'"},
    {"/weights", Json::object(), "'weights' expected a list"},
    {"/weights", Json::array(), "'weights' expected 16, found 0"},
    {"/weights/2", "x", "layer 1: expected a JSON object, found string"},
    {"/weights/5/expert", 7, "expected expert_gate 1, found expert_gate 7"},
    {"/weights/5/expert", 0, "expected expert_gate 1, found expert_gate 0"}};

const std::vector<Damage> kOfAMatrix = {
    {"/role", "k_proj", "layer 1: 'role' expected v_proj, found k_proj"},
    {"/role", 3, "'role' must be a string"},
    {"/expert", 0, "expected v_proj, found v_proj 0"},
    {"/expert", kHuge, "'expert'"},
    {"/tokens", -5, "'tokens'"},
    {"/tokens", 101, "'tokens' expected a whole number up to 100"},
    {"/energy", "1", "'energy' expected 0, or a number"},
    {"/energy", nullptr, "'energy'"},
    {"/energy", -1, "'energy'"},
    {"/schemes", "int4", "'schemes' expected a list"},
    {"/schemes", Json::array(), "lists of one length"},
    {"/schemes/0", "int5", "'schemes' expected any of int8, int4"},
    {"/schemes/0", 4, "'schemes' expected any of int8, int4"},
    {"/schemes/0", "keep", "'schemes' expected keep once"},
    {"/bytes/3", 40, "lists of one length"},
    {"/bytes/0", -1, "'bytes'"},
    {"/bytes/0", 40.5, "'bytes'"},
    {"/bytes/0", kHuge, "'bytes'"},
    {"/bytes/0", INT64_MAX, "'bytes'"},
    {"/bytes/0", 8 * 64 + 65, "'bytes' expected a whole number up to 576"},
    {"/errors", 1, "'errors' expected a list"},
    {"/errors/0", -1e-30, "'errors'"},
    {"/errors/0", 1e61, "'errors'"},
    {"/errors/0", Json::array(), "'errors'"}};

TEST_CASE("Damaged errors are refused, by what is wrong and where") {
  const model::ModelConfig config = tiny_config(sample_options("qwen3_moe"));
  const Json whole = made_up(config).to_json();
  REQUIRE_NOTHROW(read(whole, config));
  const std::vector<std::pair<std::string, std::vector<Damage>>> all{
      {"", kOfTheFile},
      {"/layers/2", kOfALayer},
      {"/layers/2/weights/2", kOfAMatrix}};
  for (const auto& [where, damages] : all) {
    for (const Damage& damage : damages) {
      Json json = whole;
      json[Json::json_pointer(where + damage.place)] = damage.value;
      CAPTURE(where, damage.place, damage.value);
      REQUIRE_THROWS_AS(read(json, config), UserError);
      REQUIRE_THROWS_WITH(read(json, config), Contains(damage.message));
    }
  }
}

TEST_CASE("Errors that lack something are refused, by what is missing") {
  const model::ModelConfig config = tiny_config(sample_options("qwen3_moe"));
  const Json whole = made_up(config).to_json();
  const auto require_needed = [&](const std::string& where) {
    const Json::json_pointer place(where);
    for (const auto& [key, value] : whole[place].items()) {
      Json json = whole;
      json[place].erase(key);
      REQUIRE_THROWS_WITH(
          read(json, config), Contains("'" + key + "' is missing"));
    }
  };
  require_needed("");
  require_needed("/layers/2");
  require_needed("/layers/2/weights/2");
  // A matrix of an expert is none without its number.
  Json json = whole;
  json["layers"][2]["weights"][5].erase("expert");
  REQUIRE_THROWS_WITH(
      read(json, config),
      Contains("expected expert_gate 1, found expert_gate"));
}

TEST_CASE("Errors with a matrix twice, or none, are refused") {
  const model::ModelConfig config = tiny_config(sample_options("qwen3_moe"));
  Json json = made_up(config).to_json();
  Json& weights = json["layers"][2]["weights"];
  std::string message;
  SECTION("twice") {
    weights[3] = weights[2];
    message = "expected o_proj, found v_proj";
  }
  SECTION("none") {
    weights.erase(3);
    message = "'weights' expected 16, found 15";
  }
  SECTION("of another layer") {
    std::swap(json["layers"][0], json["layers"][1]);
    message = "layer -1: 'weights' expected 2, found 16";
  }
  REQUIRE_THROWS_WITH(read(json, config), Contains(message));
}

TEST_CASE("Another model's errors are refused") {
  const model::ModelConfig config = tiny_config(sample_options("qwen3_moe"));
  const Json whole = made_up(config).to_json();
  TinyModelOptions other = sample_options("qwen3_moe");
  std::string message;
  SECTION("with more experts") {
    other.changes["num_experts"] = 5;
    message = "'weights' expected 19, found 16";
  }
  SECTION("with an expert of no width") {
    other.widths = {{6, 6, 6, 6}, {6, 0, 6, 6}};
    message = "layer 1: 'weights' expected 13, found 16";
  }
  SECTION("with tied embeddings") {
    other.changes["tie_word_embeddings"] = true;
    message = "layer -1: 'weights' expected 1, found 2";
  }
  SECTION("with fewer layers") {
    other.changes["num_hidden_layers"] = 1;
    message = "more layers than the model";
  }
  REQUIRE_THROWS_WITH(read(whole, tiny_config(other)), Contains(message));
}

TEST_CASE("A file of errors that is no JSON is refused by its name") {
  const TinyModel tiny(sample_options("qwen3_moe"));
  const model::ModelReader reader(tiny.path());
  MeasureOptions options;
  options.gptq.method = Method::kRtn;
  options.identity = kIdentity;
  options.candidates = [](const WeightId&) {
    return std::vector{parse_scheme("int4")};
  };
  const TemporaryFolder folder;
  const auto file = folder.path() / "errors.json";
  const std::string text = made_up(tiny.config()).to_json().dump();
  std::string damaged, message;
  SECTION("empty") { message = "not valid JSON"; }
  SECTION("cut off") {
    damaged = text.substr(0, text.size() / 2);
    message = "not valid JSON";
  }
  SECTION("a number that no double holds") {
    damaged = text;
    damaged.replace(damaged.rfind("\"outputs\":") + 10, 1, "1e999");
    message = "expected 0, or a number";
  }
  SECTION("a key twice") {
    damaged = "{\"tokens\": 7, " + text.substr(1);
    message = "duplicate JSON key 'tokens'";
  }
  SECTION("a list") {
    damaged = "[]";
    message = "expected a JSON object, found array";
  }
  io::write_file(file, damaged);
  REQUIRE_THROWS_WITH(
      measure_errors(reader, options, nullptr, file),
      Contains(file.string()) && Contains(message));
}

}  // namespace
}  // namespace fettle::quant
