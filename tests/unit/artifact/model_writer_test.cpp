// SPDX-License-Identifier: Apache-2.0
#include "artifact/model_writer.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "io/checkpoint.h"
#include "tiny_model.h"

namespace fettle::artifact {
namespace {

ModelWriterInput copy_of(const model::ModelReader& reader) {
  return {
      .source = reader,
      .config = reader.config(),
      .form = [&](const model::WeightId& id) { return reader.form(id); },
      .tensor = [&](const model::WeightId& id) { return reader.read(id); },
      .record = {"copy", "f", Json::object(), Json::object()},
      .label = "copy"};
}

TEST_CASE("A model written is the model read") {
  testing::TinyModelOptions options;
  options.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  options.constants = GENERATE(false, true);
  options.type = GENERATE(at::kFloat, at::kBFloat16);
  const testing::TinyModel tiny(options);
  const testing::TemporaryFolder out;
  const model::ModelReader source(tiny.path());
  write_model(copy_of(source), out.path());
  const model::ModelReader copy(out.path());
  for (std::size_t l = 0; l < 2; ++l) {
    REQUIRE(copy.config().layers[l].expert_widths == options.widths[l]);
    REQUIRE(copy.config().layers[l].has_constants == options.constants);
  }
  for (const model::WeightId& id : model::model_weights(source.config())) {
    CAPTURE(model::weight_name(source.config(), id));
    REQUIRE(copy.dtype(id) == source.dtype(id));
    REQUIRE(copy.read(id).equal(source.read(id)));
  }
}

TEST_CASE("What a family stores as a matrix of one row is written so") {
  testing::TinyModelOptions options;
  options.family = "ernie4_5_moe";
  const testing::TinyModel tiny(options);
  const testing::TemporaryFolder out;
  const model::ModelReader source(tiny.path());
  write_model(copy_of(source), out.path());
  const model::WeightId id{model::Role::kRouterCorrection, 1};
  const model::ModelReader copy(out.path());
  REQUIRE(copy.read(id).sizes() == at::IntArrayRef{4});
  REQUIRE(copy.read(id).equal(source.read(id)));
  const auto file = io::Checkpoint::open(out.path());
  const auto& stored = file.require(model::weight_name(copy.config(), id));
  REQUIRE(stored.shape == std::vector<std::int64_t>{1, 4});
}

TEST_CASE("Experts are written in the stacks that their loaders find") {
  testing::TinyModelOptions options;
  options.family = "gpt_oss";
  options.type = GENERATE(at::kFloat, at::kBFloat16);
  const bool ragged = GENERATE(false, true);
  if (ragged) options.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  const testing::TinyModel tiny(options);
  const testing::TemporaryFolder out;
  const model::ModelReader source(tiny.path());
  write_model(copy_of(source), out.path());
  const model::ModelReader copy(out.path());
  for (const model::WeightId& id : model::model_weights(source.config())) {
    CAPTURE(model::weight_name(source.config(), id));
    REQUIRE(copy.dtype(id) == source.dtype(id));
    REQUIRE(copy.read(id).equal(source.read(id)));
  }
  const auto file = io::Checkpoint::open(out.path());
  const std::string experts = "model.layers.0.mlp.experts.";
  const auto shape_of = [&](const std::string& name) {
    const io::TensorInfo* const found = file.find(experts + name);
    return found == nullptr ? std::vector<std::int64_t>{} : found->shape;
  };
  using Shape = std::vector<std::int64_t>;
  REQUIRE(shape_of("down_proj_bias") == Shape{4, 8});
  REQUIRE(shape_of("gate_up_proj") == (ragged ? Shape{} : Shape{4, 8, 12}));
  REQUIRE(shape_of("gate_up_proj_bias") == (ragged ? Shape{} : Shape{4, 12}));
  REQUIRE(shape_of("down_proj") == (ragged ? Shape{} : Shape{4, 6, 8}));
  REQUIRE(shape_of("2.gate_proj.bias") == (ragged ? Shape{3} : Shape{}));
}

TEST_CASE("A tensor of another shape or type than declared is our bug") {
  const testing::TinyModel tiny;
  const testing::TemporaryFolder out;
  const model::ModelReader source(tiny.path());
  ModelWriterInput input = copy_of(source);
  SECTION("shape") {
    input.tensor = [](const model::WeightId&) { return at::zeros({1, 1}); };
  }
  SECTION("type") {
    input.tensor = [&](const model::WeightId& id) {
      return source.read(id).to(at::kHalf);
    };
  }
  REQUIRE_THROWS_AS(write_model(input, out.path()), InternalError);
}

TEST_CASE("A tensor with NaN or infinity is not written") {
  const testing::TinyModel tiny;
  const testing::TemporaryFolder out;
  const model::ModelReader source(tiny.path());
  ModelWriterInput input = copy_of(source);
  input.label = "trim";
  const double bad = GENERATE(NAN, INFINITY, -INFINITY);
  const model::WeightId id{model::Role::kExpertDown, 1, 2};
  input.tensor = [&](const model::WeightId& each) {
    at::Tensor tensor = source.read(each).clone();
    if (each == id) tensor[0][1] = bad;
    return tensor;
  };
  REQUIRE_THROWS_AS(write_model(input, out.path()), UserError);
  const testing::TemporaryFolder again;
  REQUIRE_THROWS_WITH(
      write_model(input, again.path()),
      Catch::Contains("[trim] " + model::weight_name(input.config, id)));
}

TEST_CASE("A model's size counts widths and bytes") {
  testing::TinyModelOptions options;
  options.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  const model::ModelConfig ragged = testing::tiny_config(options);
  options.widths = {{6, 6, 6, 6}, {6, 6, 6, 6}};
  const model::ModelConfig full = testing::tiny_config(options);
  const auto half = [](const model::WeightId&) {
    return model::WeightForm{at::kHalf};
  };
  const ModelSize a = model_size(ragged, half);
  const ModelSize b = model_size(full, half);
  REQUIRE(a.experts == 8);
  REQUIRE(a.neurons == 29);
  REQUIRE(a.min_width == 0);
  REQUIRE(a.max_width == 6);
  REQUIRE(a.median_width == 4.0);
  REQUIRE(a.zero_width == 1);
  REQUIRE(b.zero_width == 0);
  // Three vectors of 8 values for each of the 19 missing neurons.
  REQUIRE(b.parameters - a.parameters == 19 * 3 * 8);
  REQUIRE(b.bytes - a.bytes == 19 * 3 * 8 * 2);
  REQUIRE(a.to_json()["neurons"] == 29);
}

}  // namespace
}  // namespace fettle::artifact
