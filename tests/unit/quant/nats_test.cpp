// SPDX-License-Identifier: Apache-2.0
#include "quant/nats.h"

#include <catch2/catch.hpp>

#include "calibration.h"
#include "quant/bit_plan.h"

namespace fettle::quant {
namespace {

using namespace testing;
using model::Role;
using model::WeightId;

MeasuredWeight weight_of(Role role, double energy, double error, double nats) {
  MeasuredWeight weight{.id = {role, 0}, .energy = energy};
  weight.options = {
      {parse_scheme("keep"), 100, 0, 0},
      {parse_scheme("int2"), 20, error, nats}};
  return weight;
}

TEST_CASE("A weight without prices counts as its MLP's output does") {
  LayerErrors layer;
  layer.weights = {
      weight_of(Role::kSharedGate, 50, 5, 0),
      weight_of(Role::kSharedDown, 200, 10, 0.002),
      weight_of(Role::kQProj, 40, 4, 0.01),
      weight_of(Role::kKProj, 8, 2, 0)};
  const LayerNats nats(layer);
  const auto of = [&](std::size_t i) {
    return nats.of(layer.weights[i], layer.weights[i].options[1]);
  };
  REQUIRE(of(1) == 0.002);
  REQUIRE(of(2) == 0.01);
  // The down projection loses all at 0.002 * 200 / 10 nats.
  REQUIRE(of(0) == Approx(0.04 * 5 / 50));
  // The mean of 0.04 and 0.1.
  REQUIRE(of(3) == Approx(0.07 * 2 / 8));
  REQUIRE(nats.of(layer.weights[0], layer.weights[0].options[0]) == 0);
  // A layer of a mixer alone has none: as the dearest layer's mean weight.
  LayerErrors mixer;
  mixer.weights = {weight_of(Role::kOProj, 10, 1, 0)};
  const double dearest = dearest_mean({mixer, layer});
  REQUIRE(dearest == Approx(0.07));
  REQUIRE(
      LayerNats(mixer, dearest)
          .of(mixer.weights[0], mixer.weights[0].options[1]) ==
      Approx(0.07 * 1 / 10));
}

// Prices of 1 for even rows and 3 for odd ones, of all matrices.
artifact::RowPrices uneven_prices(const model::ModelConfig& config) {
  artifact::RowPrices prices;
  prices.tokens = 48;
  prices.layers.resize(config.layers.size());
  prices.energy.resize(config.layers.size());
  std::map<std::pair<std::int64_t, Role>, std::vector<at::Tensor>> parts;
  for (const WeightId& id : model::model_weights(config)) {
    if (!part_of(id.role)) continue;
    const auto rows = model::weight_shape(config, id).front();
    parts[{id.layer, id.role}].push_back(
        at::arange(rows, at::kFloat).remainder(2) * 2 + 1);
  }
  for (const auto& [key, values] : parts) {
    auto& into = key.first < 0 ? prices.globals : prices.layers[key.first];
    into[key.second] = at::cat(values);
  }
  return prices;
}

TEST_CASE("Nats are a row's errors at its price, a token") {
  TinyCalibration calibration(sample_options("qwen3_moe"));
  const auto prices = uneven_prices(calibration.config());
  artifact::RowPrices ones = prices;
  for (auto& layer : ones.layers) {
    for (auto& [role, values] : layer) values = at::ones_like(values);
  }
  const auto measured = [&](const artifact::RowPrices& by) {
    MeasureOptions options;
    options.candidates = [](const WeightId& id) -> std::vector<Scheme> {
      return {parse_scheme(id.layer < 0 ? "int8" : "int2")};
    };
    options.prices = &by;
    Calibrated data = calibration.data();
    const TemporaryFolder folder;
    return measure_errors(
        calibration.reader(), options, &data, folder.path() / "errors.json");
  };
  const QuantErrors uneven = measured(prices);
  const QuantErrors even = measured(ones);
  REQUIRE(uneven.priced());
  for (std::size_t l = 1; l < uneven.layers.size(); ++l) {
    for (std::size_t i = 0; i < uneven.layers[l].weights.size(); ++i) {
      const MeasuredOption& one = even.layers[l].weights[i].options[0];
      const MeasuredOption& other = uneven.layers[l].weights[i].options[0];
      const Role role = uneven.layers[l].weights[i].id.role;
      // Gate and up are priced at the expert's output. 48 tokens.
      if (role != Role::kExpertGate && role != Role::kExpertUp) {
        REQUIRE(one.nats == Approx(one.error / 48));
      }
      REQUIRE(other.nats > one.nats);
      REQUIRE(other.nats < 3 * one.nats);
    }
  }
  // Embeddings: squares of the errors themselves.
  const MeasuredWeight& embeddings = uneven.layers[0].weights.front();
  REQUIRE(embeddings.options[0].nats > embeddings.options[0].error);
  REQUIRE(embeddings.options[0].nats < 3 * embeddings.options[0].error);
  // They outlive their file.
  const QuantErrors again = QuantErrors::from_json(
      uneven.to_json(), calibration.config(), uneven.identity, "errors");
  REQUIRE(
      again.layers[1].weights[0].options[0].nats ==
      uneven.layers[1].weights[0].options[0].nats);
}

TEST_CASE("Gate and up cost what the expert's output loses by both") {
  const TinyCalibration calibration(sample_options("qwen3_moe"));
  const model::ModelReader& reader = calibration.reader();
  const auto prices = uneven_prices(calibration.config());
  Hessian hessian;
  hessian.tokens = 20;
  auto generator = at::detail::createCPUGenerator(3);
  const std::int64_t hidden = calibration.config().hidden_size;
  hessian.sum = at::eye(hidden, at::kFloat);
  hessian.sample = at::randn({10, hidden}, generator, at::kFloat);
  hessian.sample_weights = at::rand({10}, generator, at::kFloat);
  const WeightId gate{Role::kExpertGate, 1, 2};
  const WeightId up{Role::kExpertUp, 1, 2};
  const WeightId down{Role::kExpertDown, 1, 2};
  const Scheme int2 = parse_scheme("int2");
  const Hessian none;
  const GptqOptions gptq;
  LayerQuantizer quantizer(reader, gptq, none);
  quantizer.set_prices(&prices);
  const auto done = quantizer.quantize(
      {{gate, int2}, {up, parse_scheme("int4")}, {up, int2}}, &hessian);
  const auto values = [](const QuantizedWeight& weight) {
    at::Tensor rows =
        at::empty({weight.matrix.rows, weight.matrix.cols}, at::kFloat);
    kernels::unpack_rows(weight.matrix, 0, rows);
    return rows.to(at::kDouble);
  };
  const at::Tensor x = hessian.sample.to(at::kDouble);
  const at::Tensor v = reader.read(down).to(at::kDouble);
  const auto output = [&](const at::Tensor& g, const at::Tensor& u) {
    const at::Tensor h = at::silu(at::mm(x, g.t())) * at::mm(x, u.t());
    return at::mm(h, v.t());
  };
  const at::Tensor error =
      output(values(done[0]), values(done[2])) -
      output(
          reader.read(gate).to(at::kDouble), reader.read(up).to(at::kDouble));
  const at::Tensor row_prices =
      prices.of(calibration.config(), down).to(at::kDouble);
  // Ten tokens stand for twenty.
  const double cost = 2 * at::mv(error.square(), row_prices)
                              .dot(hessian.sample_weights.to(at::kDouble))
                              .item<double>();
  REQUIRE(done[0].cost == Approx(cost / 2).epsilon(1e-4));
  REQUIRE(done[2].cost == Approx(cost / 2).epsilon(1e-4));
  // int4 has no partner: by its own rows.
  REQUIRE(done[1].cost > 0);
  REQUIRE(done[1].cost < done[1].error * 3);
}

TEST_CASE("Bits go where nats are, not where errors are") {
  const TinyModel tiny(sample_options("qwen3_moe"));
  const model::ModelReader reader(tiny.path());
  QuantErrors errors;
  errors.layers.resize(tiny.config().layers.size() + 1);
  for (std::int64_t l = -1; l < tiny.config().num_layers(); ++l) {
    for (const WeightId& id : measured_weights(tiny.config(), l)) {
      MeasuredWeight weight{.id = id, .tokens = 10, .energy = 100};
      const double nats = id.role == Role::kQProj && l == 1 ? 0.5 : 0.001;
      weight.options = {
          {parse_scheme("int4"), 50, 9, nats},
          {parse_scheme("int8"), 90, 0.5, 0.0001}};
      errors.layers[l + 1].weights.push_back(weight);
    }
  }
  const ChoiceSize size = choice_size(reader, errors);
  std::int64_t weights = 0;
  for (const LayerErrors& layer : errors.layers) {
    weights += static_cast<std::int64_t>(layer.weights.size());
  }
  const BitPlan plan =
      plan_bits(reader, errors, size.fixed_bytes + 50 * weights + 40);
  REQUIRE(plan.plan.scheme({Role::kQProj, 1}) == "int8");
  REQUIRE(plan.plan.scheme({Role::kQProj, 0}) == "int4");
}

}  // namespace
}  // namespace fettle::quant
