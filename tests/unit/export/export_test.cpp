// SPDX-License-Identifier: Apache-2.0
#include "export/export.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <limits>

#include "../artifact/tiny_model.h"
#include "core/error.h"
#include "export/reload_check.h"

namespace fettle::exporter {
namespace {

using Catch::Matchers::Contains;
using model::Role;
using testing::TemporaryFolder;
using testing::TinyModel;
using testing::TinyModelOptions;

TinyModelOptions ragged() {
  TinyModelOptions options;
  options.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  return options;
}

ExportResult run(
    const TinyModel& tiny,
    const ExportOptions& options,
    const TemporaryFolder& out) {
  const model::ModelReader reader(tiny.path());
  return export_model(reader, options, out.path());
}

TEST_CASE("Format names are known or refused") {
  for (const Format format :
       {Format::kHf,
        Format::kHfPadded,
        Format::kHfCode,
        Format::kRagged,
        Format::kCompressedTensors,
        Format::kGptq,
        Format::kGguf}) {
    REQUIRE(parse_format(format_name(format)) == format);
  }
  REQUIRE_THROWS_WITH(
      parse_format("awq"),
      Contains(
          "hf, hf-padded, hf-code, ragged, compressed-tensors, gptq, gguf"));
}

TEST_CASE("A model within a larger one of older names has no code") {
  model::ModelConfig config = testing::tiny_config({});
  config.json = {{"model_type", "llava"}, {"text_config", config.json}};
  config.names = {"language_model.model.", "language_model."};
  REQUIRE_THROWS_WITH(
      exported_config(config, {.format = Format::kHfCode}),
      Contains(
          "model_type 'llava': holds its language model under 'language_"));
}

// Changes of a family's configuration that give experts of `width`.
Json of_width(const std::string& family, std::int64_t width) {
  const bool plain = family == "mixtral" || family == "olmoe";
  return {{plain ? "intermediate_size" : "moe_intermediate_size", width}};
}

TEST_CASE("A uniform model of a width that loaders run is exported as it is") {
  const std::string family =
      GENERATE("qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2");
  const TinyModel tiny({.family = family, .changes = of_width(family, 8)});
  const TemporaryFolder out;
  const ExportResult result = run(tiny, {.format = Format::kHf}, out);
  REQUIRE(result.max_error == 0.0);
  REQUIRE(result.padded_neurons == 0);
  const Json config = read_json(out.path() / "config.json", "test");
  REQUIRE_FALSE(config.contains("fettle"));
}

TEST_CASE("MlpWidths that loaders' grouped products can't run are filled up") {
  const std::string family =
      GENERATE("qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2");
  const Format format = GENERATE(Format::kHf, Format::kHfPadded);
  struct WidthCase {
    const char* type;
    std::int64_t width, expected;
  };
  const WidthCase sample = GENERATE_COPY(values<WidthCase>({
      {"bfloat16", 1, 8},
      {"bfloat16", 12, 16},
      {"bfloat16", 16, 16},
      {"float32", 5, 8},
      // 16 bytes of the type that config.json names are enough for hf; who
      // pads is ready for narrower types too.
      {"float32", 12, format == Format::kHf ? 12 : 16},
  }));
  Json changes = of_width(family, sample.width);
  changes["dtype"] = sample.type;
  const TinyModel tiny({.family = family, .changes = changes});
  const TemporaryFolder out;
  const ExportResult result = run(tiny, {.format = format}, out);
  CHECK(result.after.min_width == sample.expected);
  CHECK(result.after.max_width == sample.expected);
  CHECK(result.max_error <= 1e-5);
  REQUIRE_FALSE(
      read_json(out.path() / "config.json", "test").contains("fettle"));
}

TEST_CASE("Padding adds neurons of zeros and changes no output") {
  const TinyModel tiny(ragged());
  const TemporaryFolder out;
  const ExportResult result = run(tiny, {.format = Format::kHfPadded}, out);
  REQUIRE(result.padded_neurons == 64 - 29);
  REQUIRE(result.max_error <= 1e-5);
  const model::ModelReader source(tiny.path());
  const model::ModelReader padded(out.path());
  for (std::int64_t l = 0; l < 2; ++l) {
    for (std::int64_t e = 0; e < 4; ++e) {
      const std::int64_t width = source.config().layers[l].expert_widths[e];
      REQUIRE(padded.config().layers[l].expert_widths[e] == 8);
      const at::Tensor up = padded.read({Role::kExpertUp, l, e});
      const at::Tensor down = padded.read({Role::kExpertDown, l, e});
      REQUIRE(
          up.narrow(0, 0, width).equal(source.read({Role::kExpertUp, l, e})));
      REQUIRE(down.narrow(1, 0, width)
                  .equal(source.read({Role::kExpertDown, l, e})));
      REQUIRE(up.slice(0, width).count_nonzero().item<int>() == 0);
      REQUIRE(down.slice(1, width).count_nonzero().item<int>() == 0);
    }
  }
  REQUIRE_FALSE(
      read_json(out.path() / "config.json", "test").contains("fettle"));
}

TEST_CASE("Shared experts are filled up to a whole number of experts") {
  // DeepSeek counts its shared experts, 12 neurons wide, in units of the width.
  TinyModelOptions options;
  options.family = "deepseek_v2";
  options.widths = {{}, {4, 5, 0, 3}};
  const TinyModel tiny(options);
  const TemporaryFolder out;
  const ExportResult result = run(tiny, {.format = Format::kHfPadded}, out);
  REQUIRE(result.after.max_width == 8);
  REQUIRE(result.after.min_width == 8);
  REQUIRE(result.max_error <= 1e-5);
  const Json config = read_json(out.path() / "config.json", "test");
  REQUIRE_FALSE(config.contains("fettle"));
  REQUIRE(config["n_shared_experts"] == 2);
}

TEST_CASE("Padding gives a model without neurons one of zeros") {
  TinyModelOptions options;
  options.widths = {{0, 0, 0, 0}, {0, 0, 0, 0}};
  const TinyModel tiny(options);
  const TemporaryFolder out, refused;
  REQUIRE(run(tiny, {.format = Format::kHfPadded}, out).after.max_width == 8);
  REQUIRE_THROWS_WITH(
      run(tiny, {.format = Format::kHf}, refused),
      Contains("expected experts with neurons"));
}

TEST_CASE("The ragged form keeps everything to the bit") {
  TinyModelOptions options = ragged();
  options.constants = true;
  options.type = GENERATE(at::kFloat, at::kBFloat16);
  const TinyModel tiny(options);
  const TemporaryFolder out;
  const ExportResult result = run(tiny, {.format = Format::kRagged}, out);
  REQUIRE(result.max_error == 0.0);
  REQUIRE(result.before.bytes == result.after.bytes);
  REQUIRE(model::ModelReader(out.path()).config().layers[0].has_constants);
}

TEST_CASE("Constants are dropped where that was asked for") {
  TinyModelOptions options = ragged();
  options.constants = true;
  const TinyModel tiny(options);
  const TemporaryFolder out, refused;
  REQUIRE_THROWS_WITH(
      run(tiny, {.format = Format::kHfPadded}, refused),
      Contains("layer 0: has constant expert outputs"));
  REQUIRE(std::filesystem::is_empty(refused.path()));
  const ExportResult result =
      run(tiny, {.format = Format::kHfPadded, .drop_constants = true}, out);
  REQUIRE(result.max_error <= 1e-5);
  REQUIRE_FALSE(
      model::ModelReader(out.path()).config().layers[0].has_constants);
}

TEST_CASE("Condensers and router biases are dropped where that was asked for") {
  TinyModelOptions options;
  SECTION("both") {
    options.condensers = {1};
    options.router_bias = true;
    REQUIRE_THROWS_WITH(
        exported_config(
            testing::tiny_config(options), {.format = Format::kHfPadded}),
        Contains(
            "layer 0: has 1 condensers and a router bias, for which format "
            "hf-padded has no place"));
  }
  SECTION("a list") {
    options.condensers = {0, 3};
    REQUIRE_THROWS_WITH(
        exported_config(testing::tiny_config(options), {}),
        Contains("layer 0: has 2 condensers, for which format hf"));
  }
  SECTION("a bias") {
    options.router_bias = true;
    REQUIRE_THROWS_WITH(
        exported_config(testing::tiny_config(options), {}),
        Contains("layer 0: has a router bias, for which format hf"));
  }
  // Biases that show in the routing.
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    return id.role == Role::kRouterBias ? (tensor - 1) * 20 : tensor;
  };
  options.changes = of_width("qwen3_moe", 8);
  const TinyModel tiny(options);
  const TemporaryFolder kept, dropped;
  REQUIRE(run(tiny, {.format = Format::kRagged}, kept).max_error == 0.0);
  const model::ModelReader back(kept.path());
  REQUIRE((back.config().layers == tiny.config().layers));
  // The check leaves them out of the source: the same bits, of other outputs.
  REQUIRE(run(tiny, {.drop_condensers = true}, dropped).max_error == 0.0);
  REQUIRE_FALSE(
      read_json(dropped.path() / "config.json", "test").contains("fettle"));
  REQUIRE(forward_difference(tiny.path(), dropped.path(), {}).largest > 1e-3);
}

TEST_CASE("A type may be widened exactly and narrowed knowingly") {
  TinyModelOptions options;
  options.changes = of_width("qwen3_moe", 8);
  options.changes["torch_dtype"] = "bfloat16";
  SECTION("widened") {
    options.type = at::kBFloat16;
    const TinyModel tiny(options);
    const TemporaryFolder out;
    const ExportResult result =
        run(tiny, {.format = Format::kHf, .dtype = at::kFloat}, out);
    REQUIRE_FALSE(result.narrowed);
    REQUIRE(result.max_error == 0.0);
    REQUIRE(result.after.bytes == 2 * result.before.bytes);
    REQUIRE(
        read_json(out.path() / "config.json", "test")["torch_dtype"] ==
        "float32");
  }
  SECTION("narrowed") {
    const TinyModel tiny(options);
    const TemporaryFolder out;
    const ExportResult result =
        run(tiny, {.format = Format::kHf, .dtype = at::kBFloat16}, out);
    REQUIRE(result.narrowed);
    REQUIRE(result.max_error > 0.0);
    REQUIRE(result.kl > 0.0);
    REQUIRE(result.kl < 0.01);
    REQUIRE(2 * result.after.bytes == result.before.bytes);
    const model::ModelReader reader(tiny.path());
    const model::ModelReader exported(out.path());
    REQUIRE(exported.read({Role::kRouter, 0, -1})
                .equal(reader.read({Role::kRouter, 0, -1}).to(at::kBFloat16)));
  }
}

TEST_CASE("Layouts refuse what they can't hold, naming it") {
  TinyModelOptions options;
  model::ModelConfig config = testing::tiny_config(options);
  ExportOptions target{.format = Format::kHf};
  std::string message;
  SECTION("another width") {
    config.layers[1].expert_widths[2] = 5;
    message =
        "layer 1: expert 2 has 5 neurons where the first has 6; trim with "
        "--for hf (or --widths uniform), or use hf-padded";
  }
  SECTION("another number of experts") {
    config.layers[1].expert_widths.pop_back();
    target.format = GENERATE(Format::kHf, Format::kHfPadded);
    message =
        "layer 1: expected 4 experts as in the first sparse layer, "
        "found 3: a missing expert can't be padded";
  }
  SECTION("another top_k") {
    config.layers[1].top_k = 1;
    message = "layer 1: expected top_k 2 as in the first sparse layer, found 1";
  }
  REQUIRE_THROWS_AS(exported_config(config, target), UserError);
  REQUIRE_THROWS_WITH(exported_config(config, target), Contains(message));
  target.format = Format::kRagged;
  REQUIRE_NOTHROW(exported_config(config, target));
}

TEST_CASE("Dense models pass through every layout") {
  TinyModelOptions options;
  options.changes = {{"mlp_only_layers", {0, 1}}};
  const TinyModel tiny(options);
  const TemporaryFolder out;
  REQUIRE(run(tiny, {.format = Format::kHfPadded}, out).max_error == 0.0);
}

TEST_CASE("NaN and infinity are refused by name before anything is written") {
  const Format format = GENERATE(
      Format::kHf,
      Format::kHfPadded,
      Format::kHfCode,
      Format::kRagged,
      Format::kGguf);
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16, at::kHalf);
  const float bad = GENERATE(
      std::numeric_limits<float>::quiet_NaN(),
      std::numeric_limits<float>::infinity(),
      -std::numeric_limits<float>::infinity());
  const model::WeightId where = GENERATE(
      model::WeightId{Role::kExpertDown, 1, 2}, model::WeightId{Role::kLmHead});
  TinyModelOptions options;
  options.changes = {{"norm_topk_prob", true}};  // as llama.cpp wants it
  options.type = type;
  options.edit = [&](const model::WeightId& id, at::Tensor tensor) {
    if (id == where) tensor.view(-1)[5] = bad;
    return tensor;
  };
  const TinyModel tiny(options);
  const TemporaryFolder out;
  REQUIRE_THROWS_AS(run(tiny, {.format = format}, out), UserError);
  REQUIRE_THROWS_WITH(
      run(tiny, {.format = format}, out),
      Contains(model::weight_name(tiny.config(), where)) &&
          Contains("NaN or infinity"));
  REQUIRE(std::filesystem::is_empty(out.path()));
}

TEST_CASE("A value too large for the exported type is refused by name") {
  TinyModelOptions options;
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    return id.role == Role::kOProj && id.layer == 1 ? tensor * 1e6 : tensor;
  };
  const TinyModel tiny(options);
  const TemporaryFolder out;
  REQUIRE_THROWS_WITH(
      run(tiny, {.format = Format::kHf, .dtype = at::kHalf}, out),
      Contains("layers.1.self_attn.o_proj.weight") &&
          Contains("--dtype bfloat16 or float32"));
  REQUIRE(std::filesystem::is_empty(out.path()));
}

TEST_CASE("A file damaged after writing is found") {
  const TinyModel tiny({.changes = of_width("qwen3_moe", 8)});
  const TemporaryFolder out;
  run(tiny, {.format = Format::kHf}, out);
  const model::ModelReader reader(tiny.path());
  const ExportOptions options;
  const ExportedWeights expected(reader, reader.config(), options);
  REQUIRE_NOTHROW(check_tensors(out.path(), expected));
  {
    std::fstream file(
        out.path() / "model.safetensors",
        std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-2, std::ios::end);
    file.put('\x11');
  }
  REQUIRE_THROWS_AS(check_tensors(out.path(), expected), InternalError);
}

TEST_CASE("Another model's outputs differ") {
  const TinyModel a({.seed = 1});
  const TinyModel b({.seed = 2});
  REQUIRE(forward_difference(a.path(), a.path(), {}).largest == 0.0);
  REQUIRE(forward_difference(a.path(), a.path(), {}).kl == 0.0);
  REQUIRE(forward_difference(a.path(), b.path(), {}).largest > 0.1);
  REQUIRE(forward_difference(a.path(), b.path(), {}).kl > 0.1);
}

}  // namespace
}  // namespace fettle::exporter
