// SPDX-License-Identifier: Apache-2.0
#include "quant/errors.h"

#include <catch2/catch.hpp>

#include "calibration.h"
#include "core/error.h"
#include "io/file.h"
#include "layer_reference.h"

namespace fettle::quant {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using model::Role;
using model::WeightId;

// Errors by int4, int2 and as they are, of all matrices but the embeddings and
// the head, which are kept.
MeasureOptions sample_measure() {
  MeasureOptions options;
  options.candidates = [](const WeightId& id) -> std::vector<Scheme> {
    if (id.layer < 0) return {parse_scheme("keep")};
    return {parse_scheme("int4"), parse_scheme("int2"), parse_scheme("keep")};
  };
  options.identity = {{"model", "abc"}};
  return options;
}

const MeasuredWeight& find(const LayerErrors& layer, const WeightId& id) {
  const auto found = std::ranges::find(layer.weights, id, &MeasuredWeight::id);
  REQUIRE(found != layer.weights.end());
  return *found;
}

// The model with all matrices of its layers by one scheme.
std::unique_ptr<TemporaryFolder> quantized(
    TinyCalibration& calibration,
    const GptqOptions& gptq,
    const std::string& scheme) {
  QuantOptions options;
  options.scheme = [&](const WeightId& id) {
    return parse_scheme(id.layer < 0 ? "keep" : scheme);
  };
  options.gptq = gptq;
  Calibrated data = calibration.data();
  auto folder = std::make_unique<TemporaryFolder>();
  quantize_model(calibration.reader(), options, &data, folder->path());
  return folder;
}

TEST_CASE("Errors are what the quantized model's outputs lose") {
  TinyCalibration calibration(
      sample_options(GENERATE("qwen3_moe", "qwen2_moe")));
  MeasureOptions options = sample_measure();
  options.gptq.method = GENERATE(Method::kGptq, Method::kRtn);
  options.gptq.hessians.calibration =
      GENERATE(Calibration::kRouted, Calibration::kAll);
  Calibrated data = calibration.data();
  const TemporaryFolder folder;
  const QuantErrors errors = measure_errors(
      calibration.reader(), options, &data, folder.path() / "errors.json");
  REQUIRE(errors.tokens == 48);
  REQUIRE(errors.layers.size() == 3);
  const auto seen = compute_layers(calibration.reader(), calibration.ids());
  for (std::int64_t l = 0; l < 2; ++l) {
    // Sums in fp32.
    REQUIRE(
        errors.layers[l + 1].outputs ==
        Approx(seen[l].out.square().sum().item<double>()).epsilon(1e-4));
  }
  // In layer 0 a quantized model sees what the unquantized one does.
  for (const std::string scheme : {"int4", "int2"}) {
    const auto made = quantized(calibration, options.gptq, scheme);
    const model::ModelReader reader(made->path());
    int compared = 0;
    for (const WeightId& id : measured_weights(calibration.config(), 0)) {
      CAPTURE(scheme, model::role_name(id.role), id.expert);
      const MeasuredWeight& weight = find(errors.layers[1], id);
      const Hessian moments = seen[0].moments(id, options.gptq.hessians);
      const at::Tensor w = calibration.reader().read(id);
      REQUIRE(weight.tokens == moments.tokens);
      REQUIRE(weight.options.size() == 3);
      const MeasuredOption& option = weight.options[scheme == "int4" ? 0 : 1];
      REQUIRE(option.bytes == reader.form(id).packed_bytes);
      if (id.expert >= 0 && moments.tokens < w.size(1)) continue;
      ++compared;
      REQUIRE(
          weight.energy == Approx(squares_under(w, moments.sum)).epsilon(1e-3));
      REQUIRE(
          option.error ==
          Approx(squares_under(reader.read(id) - w, moments.sum))
              .epsilon(1e-3));
      const MeasuredOption& kept = weight.options[2];
      REQUIRE(kept.bytes == static_cast<std::int64_t>(w.nbytes()));
      REQUIRE(kept.error == 0);
    }
    REQUIRE(compared > 12);
  }
}

TEST_CASE("Without data, errors are of the weights themselves") {
  const TinyModel tiny(sample_options("qwen3_moe"));
  const model::ModelReader reader(tiny.path());
  MeasureOptions options = sample_measure();
  options.gptq.method = Method::kRtn;
  const TemporaryFolder folder;
  const QuantErrors errors =
      measure_errors(reader, options, nullptr, folder.path() / "errors.json");
  REQUIRE(errors.tokens == 0);
  QuantOptions quant;
  quant.scheme = [](const WeightId& id) {
    return parse_scheme(id.layer < 0 ? "keep" : "int4");
  };
  quant.gptq = options.gptq;
  const TemporaryFolder out;
  quantize_model(reader, quant, nullptr, out.path());
  const model::ModelReader made(out.path());
  for (std::int64_t l = 0; l < 2; ++l) {
    REQUIRE(errors.layers[l + 1].outputs == 0);
    for (const WeightId& id : measured_weights(tiny.config(), l)) {
      const MeasuredWeight& weight = find(errors.layers[l + 1], id);
      const at::Tensor w = reader.read(id).to(at::kDouble);
      const auto squares = [](const at::Tensor& a) {
        return Approx(a.square().sum().item<double>()).epsilon(1e-5);
      };
      REQUIRE(weight.energy == squares(w));
      REQUIRE(weight.options[0].error == squares(made.read(id) - w));
      REQUIRE(weight.tokens == 0);
    }
  }
}

TEST_CASE("Each matrix that has weights is measured, by each scheme once") {
  TinyModelOptions model = sample_options("qwen2_moe");
  model.widths = {{6, 0, 6, 6}, {6, 6, 6, 6}};
  const TinyModel tiny(model);
  const model::ModelReader reader(tiny.path());
  MeasureOptions options;
  options.gptq.method = Method::kRtn;
  options.candidates = [](const WeightId&) {
    return std::vector{
        parse_scheme("int4"), parse_scheme("int3"), parse_scheme("int4")};
  };
  const TemporaryFolder folder;
  const QuantErrors errors =
      measure_errors(reader, options, nullptr, folder.path() / "errors.json");
  std::size_t weights = 0;
  for (const LayerErrors& layer : errors.layers) {
    for (const MeasuredWeight& weight : layer.weights) {
      ++weights;
      REQUIRE(weight.options.size() == 2);
      for (const MeasuredOption& option : weight.options) {
        REQUIRE(option.bytes > 0);
        REQUIRE(option.error > 0);
      }
      REQUIRE(weight.options[0].error < weight.options[1].error);
    }
  }
  // Embeddings and head; by layer attention's 4, shared 3, experts' 12, of
  // which one has no neuron.
  REQUIRE(weights == 2 + 2 * 19 - 3);
}

// What a run that was killed left, and what it says when it goes on.
TEST_CASE("What was measured stays so, and the rest follows") {
  TinyCalibration calibration(sample_options("qwen3_moe"));
  const MeasureOptions options = sample_measure();
  Calibrated data = calibration.data();
  const TemporaryFolder folder;
  const auto file = folder.path() / "errors.json";
  const Json whole =
      measure_errors(calibration.reader(), options, &data, file).to_json();
  REQUIRE(read_json(file, "test") == whole);
  Json part = whole;
  const std::size_t layers = GENERATE(0, 1, 2);
  while (part["layers"].size() > layers) part["layers"].erase(layers);
  // A mark shows that it was taken over.
  if (layers == 2) part["layers"][1]["weights"][0]["energy"] = 0.125;
  io::write_file(file, part.dump());
  Json expected = whole;
  if (layers == 2) expected["layers"][1]["weights"][0]["energy"] = 0.125;
  REQUIRE(
      measure_errors(calibration.reader(), options, &data, file).to_json() ==
      expected);
  REQUIRE(read_json(file, "test") == expected);
}

TEST_CASE("What is measured under other options is refused, by what differs") {
  const TinyModel tiny(sample_options("qwen3_moe"));
  const model::ModelReader reader(tiny.path());
  MeasureOptions options = sample_measure();
  options.gptq.method = Method::kRtn;
  const TemporaryFolder folder;
  const auto file = folder.path() / "errors.json";
  measure_errors(reader, options, nullptr, file);
  options.identity["model"] = "def";
  REQUIRE_THROWS_WITH(
      measure_errors(reader, options, nullptr, file),
      Contains("model") && Contains("\"abc\"") && Contains("\"def\""));
  // Also where the other model's weights are others.
  TinyModelOptions other = sample_options("qwen3_moe");
  other.changes["num_experts"] = 3;
  const TinyModel smaller(other);
  REQUIRE_THROWS_WITH(
      measure_errors(
          model::ModelReader(smaller.path()), options, nullptr, file),
      Contains("\"abc\"") && Contains("\"def\""));
}

TEST_CASE("Measuring needs a token, and outputs that are finite") {
  const TemporaryFolder folder;
  const auto file = folder.path() / "errors.json";
  const MeasureOptions options = sample_measure();
  SECTION("a token") {
    TinyCalibration calibration(
        sample_options("qwen3_moe"), std::vector<model::Sequence>{});
    Calibrated data = calibration.data();
    REQUIRE_THROWS_WITH(
        measure_errors(calibration.reader(), options, &data, file),
        Contains("at least one token"));
  }
  SECTION("finite outputs") {
    TinyModelOptions model = sample_options("qwen3_moe");
    model.edit = [](const WeightId& id, at::Tensor tensor) {
      return id.role == Role::kExpertUp && id.layer == 1 ? tensor * 1e25
                                                         : tensor;
    };
    const TinyModel tiny(model);
    MeasureOptions nearest = options;
    nearest.gptq.method = Method::kRtn;
    REQUIRE_THROWS_WITH(
        measure_errors(model::ModelReader(tiny.path()), nearest, nullptr, file),
        Contains("model.layers.1.mlp.experts.") &&
            Contains(".up_proj.weight") && Contains("none that is finite"));
    // What was measured before is there.
    REQUIRE(read_json(file, "test")["layers"].size() == 2);
  }
}

}  // namespace
}  // namespace fettle::quant
