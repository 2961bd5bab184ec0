// SPDX-License-Identifier: Apache-2.0
#include "quant/bit_plan.h"

#include <catch2/catch.hpp>
#include <functional>
#include <limits>

#include "calibration.h"
#include "core/error.h"
#include "io/checkpoint.h"

namespace fettle::quant {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using model::Role;
using model::WeightId;

// A layer of two experts.
TinyModelOptions two_experts(std::int64_t layers = 1) {
  TinyModelOptions options = sample_options("qwen3_moe");
  options.changes.update({{"num_hidden_layers", layers}, {"num_experts", 2}});
  return options;
}

// Errors by hand: experts may have int2 of 50 bytes, int4 of 70 or int8 of 110;
// the attention has int8 of 90; embeddings and head are kept.
struct Choosing {
  explicit Choosing(const TinyModelOptions& model) : tiny(model) {
    for (std::int64_t l = -1; l < tiny.config().num_layers(); ++l) {
      LayerErrors& layer = errors.layers.emplace_back();
      layer.outputs = l < 0 ? 0 : 1000;
      for (const WeightId& id : measured_weights(tiny.config(), l)) {
        layer.weights.push_back(weight_of(id));
      }
    }
  }

  MeasuredWeight weight_of(const WeightId& id) const {
    MeasuredWeight weight{.id = id, .tokens = 10, .energy = 100};
    if (id.layer < 0) {
      const std::int64_t bytes = 4 * model::weight_numel(tiny.config(), id);
      weight.options = {{parse_scheme("keep"), bytes, 0}};
    } else if (id.expert < 0) {
      weight.options = {{parse_scheme("int8"), 90, 1}};
    } else {
      weight.options = {
          {parse_scheme("int2"), 50, 12},
          {parse_scheme("int4"), 70, 3},
          {parse_scheme("int8"), 110, 0.5}};
    }
    return weight;
  }

  MeasuredWeight& weight(const WeightId& id) {
    auto& weights = errors.layers[id.layer + 1].weights;
    return *std::ranges::find(weights, id, &MeasuredWeight::id);
  }

  TinyModel tiny;
  model::ModelReader reader{tiny.path()};
  QuantErrors errors;
};

std::int64_t stored_bytes_of(const model::ModelReader& reader) {
  return static_cast<std::int64_t>(reader.checkpoint().total_bytes());
}

TEST_CASE("What has no choice is counted as it will be stored") {
  Choosing choosing(two_experts());
  const ChoiceSize size = choice_size(choosing.reader, choosing.errors);
  // Six matrices of 8 x 6, in fp32; the attention's four are 8 x 8.
  REQUIRE(size.weights == 6 * 48);
  REQUIRE(
      size.fixed_bytes ==
      stored_bytes_of(choosing.reader) - 4 * 6 * 48 - 4 * 4 * 64 + 4 * 90);
}

TEST_CASE("A budget's bytes go to the experts by what their outputs lose") {
  Choosing choosing(two_experts());
  const std::int64_t fixed =
      choice_size(choosing.reader, choosing.errors).fixed_bytes;
  const WeightId dear{Role::kExpertDown, 0, 1};
  for (MeasuredOption& option : choosing.weight(dear).options) {
    option.error *= 100;
  }
  // All at the least, and 60 bytes more.
  const BitPlan plan =
      plan_bits(choosing.reader, choosing.errors, fixed + 6 * 50 + 60);
  REQUIRE(plan.plan.scheme(dear) == "int8");
  for (const WeightId& id : measured_weights(choosing.tiny.config(), 0)) {
    if (id.expert >= 0 && id != dear) {
      REQUIRE(plan.plan.scheme(id) == "int2");
    }
    if (id.expert < 0) REQUIRE(plan.plan.scheme(id) == "int8");
  }
  REQUIRE(plan.plan.scheme({Role::kEmbedTokens}) == "keep");
  REQUIRE(plan.bytes == fixed + 6 * 50 + 60);
  REQUIRE(plan.allocation.error == Approx((5 * 12 + 50) / 1000.0));
  REQUIRE(plan.plan.model_fingerprint == choosing.reader.fingerprint());
  REQUIRE_NOTHROW(plan.plan.check_against(choosing.tiny.config()));
}

TEST_CASE("An error counts by the outputs of its layer") {
  Choosing choosing(two_experts(2));
  choosing.errors.layers[1].outputs = 10;
  const std::int64_t fixed =
      choice_size(choosing.reader, choosing.errors).fixed_bytes;
  const BitPlan plan =
      plan_bits(choosing.reader, choosing.errors, fixed + 12 * 50 + 6 * 20);
  for (std::int64_t l = 0; l < 2; ++l) {
    for (const WeightId& id : measured_weights(choosing.tiny.config(), l)) {
      if (id.expert < 0) continue;
      REQUIRE(plan.plan.scheme(id) == (l == 0 ? "int4" : "int2"));
    }
  }
}

TEST_CASE("An expert that saw no token counts as if it had seen a mean one") {
  Choosing choosing(two_experts());
  // Of gate, the other expert's outputs square to 100 over 10 tokens: a mean
  // token's to 10. The unseen expert's weights square to 4, so that its errors
  // count 2.5-fold; those of up, without energy, not at all.
  for (const Role role : {Role::kExpertGate, Role::kExpertUp}) {
    choosing.weight({role, 0, 1}).tokens = 0;
    choosing.weight({role, 0, 1}).energy = role == Role::kExpertGate ? 4 : 0;
  }
  const std::int64_t fixed =
      choice_size(choosing.reader, choosing.errors).fixed_bytes;
  const BitPlan least =
      plan_bits(choosing.reader, choosing.errors, fixed + 6 * 50);
  REQUIRE(least.allocation.error == Approx(12 * (4 + 2.5) / 1000));
  const BitPlan next =
      plan_bits(choosing.reader, choosing.errors, fixed + 6 * 50 + 20);
  REQUIRE(next.plan.scheme({Role::kExpertGate, 0, 1}) == "int4");
}

TEST_CASE("Without data, all errors count alike") {
  Choosing choosing(two_experts());
  for (LayerErrors& layer : choosing.errors.layers) {
    layer.outputs = 0;
    for (MeasuredWeight& weight : layer.weights) weight.tokens = 0;
  }
  const std::int64_t fixed =
      choice_size(choosing.reader, choosing.errors).fixed_bytes;
  const BitPlan plan =
      plan_bits(choosing.reader, choosing.errors, fixed + 6 * 50);
  REQUIRE(plan.allocation.error == Approx(6 * 12));
}

// All choices of the experts' matrices, one after another.
double least_error(const LayerErrors& layer, std::int64_t budget) {
  std::vector<const MeasuredWeight*> open;
  for (const MeasuredWeight& weight : layer.weights) {
    if (weight.options.size() > 1) open.push_back(&weight);
  }
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(std::size_t, std::int64_t, double)> choose =
      [&](std::size_t i, std::int64_t left, double error) {
        if (left < 0) return;
        if (i == open.size()) {
          best = std::min(best, error / layer.outputs);
          return;
        }
        for (const MeasuredOption& option : open[i]->options) {
          choose(i + 1, left - option.bytes, error + option.error);
        }
      };
  choose(0, budget, 0);
  return best;
}

// What is planned from what was measured, and what is written by the plan.
TEST_CASE("A plan is the best in its budget, and is written in its bytes") {
  TinyModelOptions model = two_experts();
  model.changes["moe_intermediate_size"] = 24;
  TinyCalibration calibration(model);
  MeasureOptions measure;
  measure.candidates = [](const WeightId& id) -> std::vector<Scheme> {
    if (id.layer < 0) return {parse_scheme("keep")};
    if (id.expert < 0) return {parse_scheme("int8")};
    return {parse_scheme("int2"), parse_scheme("int3"), parse_scheme("int8")};
  };
  Calibrated data = calibration.data();
  const TemporaryFolder folder;
  const QuantErrors errors = measure_errors(
      calibration.reader(), measure, &data, folder.path() / "errors.json");
  for (const MeasuredWeight& weight : errors.layers[1].weights) {
    REQUIRE(weight.tokens > 0);
  }
  const ChoiceSize size = choice_size(calibration.reader(), errors);
  std::int64_t least = size.fixed_bytes;
  std::int64_t most = size.fixed_bytes;
  for (const MeasuredWeight& weight : errors.layers[1].weights) {
    if (weight.options.size() == 1) continue;
    least += weight.options.front().bytes;
    most += weight.options.back().bytes;
  }
  const std::int64_t budget =
      least + (most - least) * GENERATE(0, 30, 70) / 100;
  const BitPlan plan = plan_bits(calibration.reader(), errors, budget);
  REQUIRE(plan.bytes <= budget);
  REQUIRE(
      plan.allocation.error ==
      Approx(least_error(errors.layers[1], budget - size.fixed_bytes)));
  QuantOptions quant;
  quant.scheme = [&](const WeightId& id) {
    return parse_scheme(plan.plan.scheme(id));
  };
  const TemporaryFolder out;
  quantize_model(calibration.reader(), quant, &data, out.path());
  REQUIRE(plan.bytes == stored_bytes_of(model::ModelReader(out.path())));
}

TEST_CASE("A plan names what has no weights, and a budget too small") {
  TinyModelOptions model = two_experts();
  model.widths = {{6, 0}};
  Choosing choosing(model);
  const std::int64_t fixed =
      choice_size(choosing.reader, choosing.errors).fixed_bytes;
  const BitPlan plan =
      plan_bits(choosing.reader, choosing.errors, fixed + 3 * 110);
  REQUIRE(plan.plan.scheme({Role::kExpertGate, 0, 1}) == "keep");
  REQUIRE(plan.plan.scheme({Role::kExpertGate, 0, 0}) == "int8");
  REQUIRE_NOTHROW(plan.plan.check_against(choosing.tiny.config()));
  REQUIRE_THROWS_WITH(
      plan_bits(choosing.reader, choosing.errors, fixed + 3 * 50 - 1),
      Contains(std::to_string(fixed + 3 * 50) + " bytes"));
}

// What a file of errors may say at worst, see errors_file.cpp.
TEST_CASE("Errors at the bounds of what is measured give a plan") {
  Choosing choosing(two_experts());
  choosing.errors.layers[1].outputs = 1e-46;
  for (MeasuredWeight& weight : choosing.errors.layers[1].weights) {
    weight.energy = weight.id.expert == 0 ? 1e60 : 1e-46;
    weight.tokens = weight.id.expert == 0 ? 1 : 0;
    for (MeasuredOption& option : weight.options) option.error *= 1e58;
  }
  const std::int64_t fixed =
      choice_size(choosing.reader, choosing.errors).fixed_bytes;
  const BitPlan plan =
      plan_bits(choosing.reader, choosing.errors, fixed + 3 * 50 + 3 * 110);
  REQUIRE(plan.plan.scheme({Role::kExpertGate, 0, 1}) == "int8");
  REQUIRE(plan.plan.scheme({Role::kExpertGate, 0, 0}) == "int2");
}

}  // namespace
}  // namespace fettle::quant
