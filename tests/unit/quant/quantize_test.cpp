// SPDX-License-Identifier: Apache-2.0
#include "quant/quantize.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>

#include "calibration.h"
#include "core/error.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "layer_reference.h"
#include "quant/memory.h"

namespace fettle::quant {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using model::Role;
using model::WeightId;

namespace fs = std::filesystem;

// Each part by a scheme of its own; queries are kept.
QuantOptions sample_quant() {
  QuantOptions options;
  options.scheme = [](const WeightId& id) {
    if (id.role == Role::kQProj) return parse_scheme("keep");
    switch (*part_of(id.role)) {
      case Part::kExperts:
        return parse_scheme("int4");
      case Part::kDown:
        return parse_scheme("ternary-coded");
      case Part::kShared:
        return parse_scheme("int3");
      case Part::kEmbeddings:
        return parse_scheme("int2");
      default:
        return parse_scheme("int8");
    }
  };
  options.identity = {{"model", "abc"}, {"micro_batch_tokens", 10}};
  return options;
}

// What is stored of a weight, by the checkpoint's headers.
const io::TensorInfo& stored_of(
    const io::Checkpoint& checkpoint,
    const model::ModelConfig& config,
    const WeightId& id) {
  const std::string name = model::weight_name(config, id);
  const auto* packed =
      checkpoint.find(name + std::string(model::kPackedSuffix));
  return packed != nullptr ? *packed : checkpoint.require(name);
}

// Of every file but its header.
std::int64_t bytes_of_shards(const fs::path& folder) {
  std::int64_t total = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    std::uint64_t header = 0;
    file.read(reinterpret_cast<char*>(&header), sizeof(header));
    total += static_cast<std::int64_t>(entry.file_size() - 8 - header);
  }
  return total;
}

// What is stored of a role's matrices, and how many of them are packed.
struct Stored {
  std::int64_t bytes = 0, weights = 0, packed = 0;
};

// By layer, -1 first, and role; what is in no part goes by no name.
std::vector<std::map<std::string, Stored>> stored_in(
    const io::Checkpoint& checkpoint, const model::ModelConfig& config) {
  std::vector<std::map<std::string, Stored>> layers(config.layers.size() + 1);
  for (const WeightId& id : model::model_weights(config)) {
    const io::TensorInfo& tensor = stored_of(checkpoint, config, id);
    const bool counted = part_of(id.role).has_value();
    Stored& sum = layers[id.layer + 1]
                        [counted ? std::string(model::role_name(id.role)) : ""];
    sum.bytes += static_cast<std::int64_t>(tensor.bytes());
    sum.weights += model::weight_numel(config, id);
    sum.packed += tensor.name.ends_with(model::kPackedSuffix) ? 1 : 0;
  }
  return layers;
}

TEST_CASE("A report's numbers add up to the bytes that were written") {
  TinyModelOptions model = sample_options("qwen2_moe");
  model.widths = {{6, 0, 4, 5}, {6, 6, 6, 6}};
  model.type = GENERATE(at::kFloat, at::kBFloat16);
  TinyCalibration calibration(model);
  const auto& config = calibration.config();
  Calibrated data = calibration.data();
  const TemporaryFolder out;
  const QuantResult result =
      quantize_model(calibration.reader(), sample_quant(), &data, out.path());
  const Json report = read_json(out.path() / "quant_report.json", "test");
  const auto expected = stored_in(io::Checkpoint::open(out.path()), config);
  std::int64_t total = 0;
  REQUIRE(report["layers"].size() == 3);
  for (std::int64_t l = 0; l < 3; ++l) {
    const Json& layer = report["layers"][l];
    REQUIRE(layer["layer"] == l - 1);
    // All but what is in no part.
    REQUIRE(layer["roles"].size() == expected[l].size() - 1);
    for (const auto& [name, stored] : expected[l]) {
      CAPTURE(l, name);
      total += stored.bytes;
      if (name.empty()) continue;
      const Json& role = layer["roles"][name];
      REQUIRE(role["bytes"] == stored.bytes);
      REQUIRE(role["weights"] == stored.weights);
      REQUIRE(role["matrices"] == stored.packed);
      REQUIRE(
          role["bits_per_weight"].get<double>() ==
          Approx(
              8.0 * static_cast<double>(stored.bytes) /
              static_cast<double>(stored.weights)));
    }
  }
  REQUIRE(report["after"]["bytes"] == total);
  REQUIRE(total == bytes_of_shards(out.path()));
  REQUIRE(
      report["before"]["bytes"] ==
      bytes_of_shards(calibration.reader().folder()));
  REQUIRE(report["before"]["parameters"] == config.parameters());
  REQUIRE(report["after"]["parameters"] == config.parameters());
  REQUIRE(report["tokens"] == 48);
  const auto& bits = result.layers[1].expert_bits.at("expert_down");
  REQUIRE(bits.size() == 4);
  REQUIRE(bits[1] == 0);
  double bytes = 0;
  for (std::size_t e = 0; e < 4; ++e) {
    const std::int64_t width = model.widths[0][e];
    bytes += bits[e] * static_cast<double>(width * config.hidden_size) / 8;
  }
  const Json& down = report["layers"][1]["roles"]["expert_down"];
  REQUIRE(bytes == Approx(down["bytes"].get<double>()).epsilon(1e-3));
  const Json index =
      read_json(out.path() / "packed.safetensors.index.json", "test");
  REQUIRE(index["metadata"]["total_size"] == total);
}

TEST_CASE("A report's errors are the outputs', behind quantized layers") {
  TinyCalibration calibration(sample_options("qwen2_moe"));
  Calibrated data = calibration.data();
  QuantOptions options = sample_quant();
  options.gptq.starved = Starved::kRtn;
  const TemporaryFolder out;
  const QuantResult result =
      quantize_model(calibration.reader(), options, &data, out.path());
  const model::ModelReader made(out.path());
  at::Tensor x = calibration.reader()
                     .read({Role::kEmbedTokens})
                     .to(at::kDouble)
                     .index_select(0, calibration.ids());
  for (std::int64_t l = 0; l < 2; ++l) {
    const LayerReference seen = compute_layer(calibration.reader(), l, x);
    std::map<std::string, RoleRecord> expected;
    for (const WeightId& id : model::layer_weights(calibration.config(), l)) {
      if (!part_of(id.role) || options.scheme(id).keep) continue;
      const Hessian moments = seen.moments(id, options.gptq.hessians);
      const at::Tensor w = calibration.reader().read(id);
      RoleRecord& role = expected[std::string(model::role_name(id.role))];
      role.scarce += moments.tokens < w.size(1) ? 1 : 0;
      role.unseen += moments.tokens == 0 ? 1 : 0;
      if (moments.tokens == 0) continue;
      role.error += squares_under(made.read(id) - w, moments.sum);
      role.energy += squares_under(w, moments.sum);
    }
    for (const auto& [name, role] : expected) {
      CAPTURE(l, name);
      const RoleRecord& found = result.layers[l + 1].roles.at(name);
      REQUIRE(found.scarce == role.scarce);
      REQUIRE(found.unseen == role.unseen);
      if (role.unseen > 0) continue;
      // Sums in fp32.
      REQUIRE(found.error == Approx(role.error).epsilon(1e-3));
      REQUIRE(found.energy == Approx(role.energy).epsilon(1e-3));
    }
    // What the next layer takes in is what this one gives as written.
    x = compute_layer(made, l, x).out;
  }
}

TEST_CASE("Matrices of experts count as unseen, embeddings don't") {
  // Of top-2 in each of two layers, two of four experts see a token.
  std::vector<model::Sequence> tokens(20, {{3}, {3}, {}});
  TinyCalibration calibration(sample_options("qwen3_moe"), tokens);
  Calibrated data = calibration.data();
  const TemporaryFolder out;
  const QuantResult result =
      quantize_model(calibration.reader(), sample_quant(), &data, out.path());
  for (const auto& [name, role] : result.layers[0].roles) {
    REQUIRE(role.unseen == 0);
    REQUIRE(role.scarce == 0);
  }
  for (const char* name : {"expert_gate", "expert_up", "expert_down"}) {
    const RoleRecord& role = result.layers[1].roles.at(name);
    REQUIRE(role.matrices == 4);
    REQUIRE(role.unseen == 2);
    REQUIRE(role.scarce == 2);
  }
  REQUIRE(result.layers[1].roles.at("v_proj").unseen == 0);
}

std::string content_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {
      std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string shard_name(int shard) {
  return "packed-0000" + std::to_string(shard) + "-of-00003.safetensors";
}

TEST_CASE("A run that was killed goes on to the same files") {
  TinyCalibration calibration(sample_options("qwen3_moe"));
  Calibrated data = calibration.data();
  const QuantOptions options = sample_quant();
  const TemporaryFolder whole, left;
  quantize_model(calibration.reader(), options, &data, whole.path());
  io::write_file(left.path() / "quant_state.json", options.identity.dump());
  const int shards = GENERATE(0, 1, 2, 3);
  for (int s = 1; s <= shards; ++s) {
    fs::copy_file(whole.path() / shard_name(s), left.path() / shard_name(s));
  }
  REQUIRE(resumed_micro_batch(left.path()) == 10);
  quantize_model(calibration.reader(), options, &data, left.path());
  for (int s = 1; s <= 3; ++s) {
    REQUIRE(
        content_of(left.path() / shard_name(s)) ==
        content_of(whole.path() / shard_name(s)));
  }
  for (const char* file : {"quant_report.json", "fettle.json", "config.json"}) {
    CAPTURE(file);
    REQUIRE(content_of(left.path() / file) == content_of(whole.path() / file));
  }
  // Parts that don't say what they were made from are not taken over.
  fs::remove(left.path() / "quant_state.json");
  REQUIRE_THROWS_WITH(
      quantize_model(calibration.reader(), options, &data, left.path()),
      Contains("what the parts beside it were made from"));
}

TEST_CASE("A state that is damaged, or of another run, is refused") {
  const TinyModel tiny(sample_options("qwen3_moe"));
  const model::ModelReader reader(tiny.path());
  QuantOptions options = sample_quant();
  options.gptq.method = Method::kRtn;
  const TemporaryFolder out;
  std::string state, message;
  SECTION("no JSON") {
    state = "{";
    message = "not valid JSON";
  }
  SECTION("a number") {
    state = "3";
    message = "identity";
  }
  SECTION("a list") {
    state = "[1]";
    message = "expected 1";
  }
  SECTION("another model's") {
    state = R"({"model": "def", "micro_batch_tokens": 10})";
    message = "model: expected \"def\"";
  }
  io::write_file(out.path() / "quant_state.json", state);
  REQUIRE_THROWS_AS(
      quantize_model(reader, options, nullptr, out.path()), UserError);
  REQUIRE_THROWS_WITH(
      quantize_model(reader, options, nullptr, out.path()), Contains(message));
}

TEST_CASE("The micro-batch of a run is a number of tokens") {
  const TemporaryFolder out;
  const auto read = [&](const std::string& state) {
    io::write_file(out.path() / "quant_state.json", state);
    return resumed_micro_batch(out.path());
  };
  REQUIRE_FALSE(resumed_micro_batch(out.path()).has_value());
  REQUIRE_FALSE(read("{}").has_value());
  REQUIRE(read(R"({"micro_batch_tokens": 7})") == 7);
  for (const char* value :
       {"0", "-1", "1.5", "\"7\"", "[]", "18446744073709551615"}) {
    const std::string state =
        std::string("{\"micro_batch_tokens\": ") + value + "}";
    REQUIRE_THROWS_AS(read(state), UserError);
    REQUIRE_THROWS_WITH(read(state), Contains("'micro_batch_tokens'"));
  }
  REQUIRE_THROWS_WITH(read("[]"), Contains("quant_state.json"));
}

TEST_CASE("A layer's record comes back from JSON") {
  LayerRecord record{.layer = 3, .seconds = 1.5};
  record.roles["o_proj"] = {64, 40, 0.1, 0.7, 1, 0, 0};
  record.roles["expert_up"] = {6400, 4000, -1e-9, 1e12, 9, 5, 2};
  record.expert_bits["expert_up"] = {4.125, 0, 2.25};
  const LayerRecord found =
      LayerRecord::from_json(Json::parse(record.note().dump()));
  REQUIRE(found.note() == record.note());
  REQUIRE(found.roles.at("expert_up").unseen == 2);
  REQUIRE(found.roles.at("expert_up").error == -1e-9);
}

TEST_CASE("A damaged record is refused, by what is wrong") {
  LayerRecord record{.layer = 3};
  record.roles["o_proj"] = {64, 40, 0.1, 0.7, 1, 0, 0};
  record.expert_bits["expert_up"] = {4.125};
  const Json whole = record.note();
  const auto require_refused = [](const Json& json, const std::string& key) {
    REQUIRE_THROWS_AS(LayerRecord::from_json(json), UserError);
    REQUIRE_THROWS_WITH(
        LayerRecord::from_json(json), Contains("'" + key + "'"));
  };
  for (const char* key :
       {"weights",
        "bytes",
        "error",
        "energy",
        "matrices",
        "scarce",
        "unseen"}) {
    Json json = whole;
    Json& role = json["roles"]["o_proj"];
    role.erase(key);
    require_refused(json, key);
    role[key] = "1";
    require_refused(json, key);
  }
  for (const char* key : {"weights", "bytes", "matrices", "scarce", "unseen"}) {
    Json json = whole;
    for (const Json& value :
         {Json(-1), Json(0.5), Json(INT64_MAX), Json(UINT64_MAX)}) {
      json["roles"]["o_proj"][key] = value;
      require_refused(json, key);
    }
  }
  Json json = whole;
  json["roles"] = Json::array();
  require_refused(json, "roles");
  json["roles"] = {{"o_proj", 3}};
  require_refused(json, "o_proj");
  json = whole;
  json["expert_bits"]["expert_up"] = {4.0, "2"};
  require_refused(json, "expert_up");
  json["expert_bits"]["expert_up"] = 4.0;
  require_refused(json, "expert_up");
  json.erase("layer");
  require_refused(json, "layer");
}

TEST_CASE("What can't be quantized leaves no model behind, and its name") {
  TinyModelOptions model = sample_options("qwen3_moe");
  model.edit = [](const WeightId& id, at::Tensor tensor) {
    if (id == WeightId{Role::kExpertDown, 1, 3}) tensor[2][1] = NAN;
    return tensor;
  };
  TinyCalibration calibration(model);
  Calibrated data = calibration.data();
  QuantOptions options = sample_quant();
  const bool led = GENERATE(true, false);
  if (!led) options.gptq.method = Method::kRtn;
  const TemporaryFolder out;
  if (!led) {
    const TemporaryFolder other;
    REQUIRE_THROWS_AS(
        quantize_model(calibration.reader(), options, nullptr, other.path()),
        NotFiniteError);
  }
  REQUIRE_THROWS_WITH(
      quantize_model(
          calibration.reader(), options, led ? &data : nullptr, out.path()),
      Contains("model.layers.1.mlp.experts.3.down_proj.weight"));
  REQUIRE_FALSE(fs::exists(out.path() / "packed.safetensors.index.json"));
  REQUIRE_FALSE(fs::exists(out.path() / "config.json"));
}

TEST_CASE("Calibration needs a token") {
  TinyCalibration calibration(
      sample_options("qwen3_moe"), std::vector<model::Sequence>{});
  Calibrated data = calibration.data();
  const TemporaryFolder out;
  REQUIRE_THROWS_WITH(
      quantize_model(calibration.reader(), sample_quant(), &data, out.path()),
      Contains("at least one token"));
}

TEST_CASE("A model's memory grows with what is held of its moments") {
  const TinyModel tiny(sample_options("qwen3_moe"));
  const model::ModelReader reader(tiny.path());
  QuantOptions options = sample_quant();
  std::int64_t experts = 0;
  for (std::int64_t e = 0; e < 4; ++e) {
    experts += expert_hessian_bytes(tiny.config(), 0, e);
  }
  const std::int64_t one = expert_hessian_bytes(tiny.config(), 0, 0);
  options.moment_bytes = 0;
  const sweep::StageMemory least = quant_memory(reader, options, false);
  REQUIRE(most_moment_bytes(reader, options) > one);
  options.moment_bytes = INT64_MAX;
  const sweep::StageMemory most = quant_memory(reader, options, false);
  REQUIRE(most.bytes - least.bytes == experts - one);
  REQUIRE(most.device_bytes - least.device_bytes == experts - one);
}

TEST_CASE("A model's memory is less where weights are kept, or experts apart") {
  // Layers are then larger than what rounds a weight.
  TinyModelOptions model = sample_options("qwen3_moe");
  model.type = at::kBFloat16;
  model.changes["num_hidden_layers"] = 1;
  model.changes["num_experts"] = 128;
  model.changes["hidden_size"] = 192;
  model.changes["moe_intermediate_size"] = 192;
  const TinyModel tiny(model);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const model::ModelReader reader(tiny.path());
  QuantOptions options = sample_quant();
  options.moment_bytes = 0;
  const auto bytes = [&] { return quant_memory(reader, options, false).bytes; };
  const std::int64_t chosen = bytes();
  REQUIRE(quant_memory(reader, options, true).bytes < chosen);
  const std::int64_t plain = quant_bytes(reader, options);
  REQUIRE(plain < chosen);
  options.scheme = nullptr;
  REQUIRE(bytes() > chosen);
  REQUIRE(quant_bytes(reader, options) > plain);
  options.scheme = [](const WeightId&) { return Scheme{.keep = true}; };
  REQUIRE(bytes() < chosen);
  at::set_num_threads(threads);
}

TEST_CASE("A model is quantized to the same bytes with experts apart") {
  TinyModelOptions model = sample_options(GENERATE("qwen3_moe", "gpt_oss"));
  model.widths = {{6, 0, 4, 5}, {6, 6, 6, 6}};
  TinyCalibration calibration(model);
  QuantOptions options = sample_quant();
  options.gptq.hessians.calibration =
      GENERATE(Calibration::kRouted, Calibration::kAll);
  // Not all experts: some are read as they were.
  const auto chosen = options.scheme;
  options.scheme = [chosen](const WeightId& id) {
    return id.expert == 2 ? Scheme{.keep = true} : chosen(id);
  };
  const auto written = [&](bool apart) {
    model::CausalLm lm(calibration.reader().folder(), {.experts_apart = apart});
    Calibrated data{lm, calibration.data().data};
    const TemporaryFolder out;
    quantize_model(lm.reader(), options, &data, out.path());
    std::string bytes;
    for (int s = 1; s <= 3; ++s)
      bytes += content_of(out.path() / shard_name(s));
    return bytes;
  };
  REQUIRE(written(true) == written(false));
}

}  // namespace
}  // namespace fettle::quant
