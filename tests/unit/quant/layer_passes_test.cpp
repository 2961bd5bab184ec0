// SPDX-License-Identifier: Apache-2.0
#include "quant/layer_passes.h"

#include <catch2/catch.hpp>
#include <map>
#include <mutex>

#include "calibration.h"
#include "core/error.h"
#include "layer_reference.h"

namespace fettle::quant {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using model::Role;
using model::WeightId;

const Scheme kInt4 = parse_scheme("int4");

// All matrices of a layer, in the model's order.
std::vector<WeightScheme> matrices_of(
    const model::ModelConfig& config, std::int64_t layer) {
  std::vector<WeightScheme> weights;
  for (const WeightId& id : model::layer_weights(config, layer)) {
    if (part_of(id.role)) weights.emplace_back(id, kInt4);
  }
  return weights;
}

TEST_CASE("Weights with one input are one site") {
  TinyModelOptions options;
  options.family = "qwen2_moe";
  options.changes = {{"num_experts", 2}};
  options.widths = {{6, 0}};
  const model::ModelConfig config = tiny_config(options);
  std::vector<WeightScheme> weights = matrices_of(config, 0);
  // Twice, by two schemes; and one that is kept.
  weights.emplace_back(WeightId{Role::kVProj, 0}, parse_scheme("int2"));
  std::erase_if(weights, [](const WeightScheme& weight) {
    return weight.first.role == Role::kSharedUp;
  });
  weights.emplace_back(WeightId{Role::kSharedUp, 0}, parse_scheme("keep"));
  std::string text;
  for (const Site& site : group_by_site(config, weights)) {
    text += std::string(model::role_name(site.role)) + " " +
            std::to_string(site.expert) + ":";
    for (const auto& [id, scheme] : site.weights) {
      REQUIRE(id.expert == site.expert);
      text += " " + std::string(model::role_name(id.role));
    }
    text += "\n";
  }
  REQUIRE(
      text ==
      "q_proj -1: q_proj k_proj v_proj v_proj\n"
      "o_proj -1: o_proj\n"
      "expert_gate 0: expert_gate expert_up\n"
      "expert_down 0: expert_down\n"
      "shared_gate -1: shared_gate\n"
      "shared_down -1: shared_down\n");
}

// What became of each site.
struct Done {
  std::mutex mutex;
  std::map<std::size_t, std::vector<QuantizedWeight>> sites;
  int calls = 0;

  SiteDone collect() {
    return [this](std::size_t site, std::vector<QuantizedWeight> weights) {
      const std::lock_guard lock(mutex);
      sites[site] = std::move(weights);
      ++calls;
    };
  }
};

void require_same(const Done& a, const Done& b) {
  REQUIRE(a.sites.size() == b.sites.size());
  REQUIRE(a.calls == b.calls);
  for (const auto& [place, weights] : a.sites) {
    const auto& others = b.sites.at(place);
    REQUIRE(weights.size() == others.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      REQUIRE((weights[i].id == others[i].id));
      REQUIRE(weights[i].matrix.codes.equal(others[i].matrix.codes));
      REQUIRE(weights[i].matrix.scales.equal(others[i].matrix.scales));
      REQUIRE(weights[i].tokens == others[i].tokens);
      REQUIRE(weights[i].error == others[i].error);
      REQUIRE(weights[i].energy == others[i].energy);
    }
  }
}

TEST_CASE("Passes within a budget of moments give what one pass gives") {
  TinyModelOptions options = sample_options("qwen2_moe");
  options.widths = {{6, 0, 4, 5}, {3, 6, 6, 6}};
  // Enough tokens for all experts, and too few.
  TinyCalibration calibration(options, GENERATE(48, 12));
  const auto& config = calibration.config();
  GptqOptions gptq;
  gptq.hessians.calibration = GENERATE(Calibration::kRouted, Calibration::kAll);
  const std::int64_t layer = GENERATE(0, 1);
  const std::vector<Site> sites =
      group_by_site(config, matrices_of(config, layer));
  sweep::LayerStream stream(calibration.model(), calibration.batches(), {});
  if (layer == 1) {
    stream.advance({config, 0, *calibration.model().acquire(0, -1)});
  }
  const at::Tensor inputs = stream.inputs(0).clone();
  const auto run = [&](std::int64_t moment_bytes) {
    auto done = std::make_unique<Done>();
    quantize_sites(
        {calibration.reader(),
         gptq,
         moment_bytes,
         &calibration.model(),
         &stream},
        layer,
        sites,
        done->collect());
    return done;
  };
  const auto whole = run(std::int64_t{1} << 30);
  REQUIRE(whole->sites.size() == sites.size());
  REQUIRE(whole->calls == std::ssize(sites));
  std::int64_t all = 0;
  for (std::int64_t e = 0; e < 4; ++e) {
    all += expert_hessian_bytes(config, layer, e);
  }
  // None fits, and one is done all the same; the first two; all but the last.
  for (const std::int64_t bytes :
       {std::int64_t{0},
        expert_hessian_bytes(config, layer, 0) +
            expert_hessian_bytes(config, layer, 1),
        all - 1}) {
    require_same(*run(bytes), *whole);
  }
  REQUIRE(stream.inputs(0).equal(inputs));
}

TEST_CASE("A site is led by the moments of its own input") {
  TinyCalibration calibration(sample_options("deepseek_v2"));
  const auto& config = calibration.config();
  const GptqOptions gptq;
  sweep::LayerStream stream(calibration.model(), calibration.batches(), {});
  stream.advance({config, 0, *calibration.model().acquire(0, -1)});
  const std::vector<Site> sites = group_by_site(config, matrices_of(config, 1));
  Done done;
  quantize_sites(
      {calibration.reader(), gptq, 0, &calibration.model(), &stream},
      1,
      sites,
      done.collect());
  const LayerReference expected =
      compute_layers(calibration.reader(), calibration.ids())[1];
  std::size_t compared = 0;
  for (const auto& [place, weights] : done.sites) {
    for (const QuantizedWeight& weight : weights) {
      CAPTURE(model::role_name(weight.id.role), weight.id.expert);
      const Hessian moments = expected.moments(weight.id, gptq.hessians);
      REQUIRE(weight.tokens == moments.tokens);
      if (weight.scarce) continue;
      ++compared;
      // Sums in fp32.
      REQUIRE(
          weight.energy ==
          Approx(
              squares_under(calibration.reader().read(weight.id), moments.sum))
              .epsilon(1e-3));
    }
  }
  REQUIRE(compared > 12);
}

TEST_CASE("Experts that no token reaches are led by the layer's moments") {
  // Of top-2, two experts of four see all tokens, which are one and the same.
  std::vector<model::Sequence> data(20, {{3}, {3}, {}});
  TinyCalibration calibration(sample_options("qwen3_moe"), data);
  const auto& config = calibration.config();
  GptqOptions gptq;
  gptq.starved = GENERATE(Starved::kMean, Starved::kRtn);
  const std::vector<Site> sites = group_by_site(config, matrices_of(config, 0));
  sweep::LayerStream stream(calibration.model(), calibration.batches(), {});
  Done led, unled;
  quantize_sites(
      {calibration.reader(), gptq, 0, &calibration.model(), &stream},
      0,
      sites,
      led.collect());
  GptqOptions nearest = gptq;
  nearest.method = Method::kRtn;
  quantize_sites({calibration.reader(), nearest}, 0, sites, unled.collect());
  const at::Tensor x =
      compute_layers(calibration.reader(), calibration.ids())[0].inputs.at(
          {Role::kExpertGate, 0});
  int unseen = 0;
  for (std::size_t s = 0; s < sites.size(); ++s) {
    if (sites[s].role != Role::kExpertGate) continue;
    for (std::size_t i = 0; i < 2; ++i) {
      const QuantizedWeight& weight = led.sites.at(s)[i];
      REQUIRE((weight.tokens == 0 || weight.tokens == 20));
      REQUIRE(weight.scarce == (weight.tokens == 0));
      if (weight.tokens > 0) continue;
      ++unseen;
      const at::Tensor w = calibration.reader().read(weight.id);
      if (gptq.starved == Starved::kMean) {
        REQUIRE(
            weight.energy ==
            Approx(squares_under(w, at::mm(x.t(), x))).epsilon(1e-3));
      } else {
        const QuantizedWeight& plain = unled.sites.at(s)[i];
        REQUIRE(weight.matrix.codes.equal(plain.matrix.codes));
        REQUIRE(weight.energy == plain.energy);
      }
    }
  }
  REQUIRE(unseen == 4);
}

TEST_CASE("A weight that can't be quantized stops the layer, by its name") {
  TinyModelOptions options = sample_options("qwen3_moe");
  options.edit = [](const WeightId& id, at::Tensor tensor) {
    if (id == WeightId{Role::kExpertUp, 1, 2}) tensor[0][0] = NAN;
    return tensor;
  };
  const TinyModel tiny(options);
  const model::ModelReader reader(tiny.path());
  GptqOptions gptq;
  gptq.method = Method::kRtn;
  const auto run = [&](std::int64_t layer) {
    Done done;
    const auto weights = matrices_of(tiny.config(), layer);
    quantize_sites(
        {reader, gptq},
        layer,
        group_by_site(tiny.config(), weights),
        done.collect());
  };
  REQUIRE_NOTHROW(run(0));
  REQUIRE_THROWS_WITH(
      run(1), Contains("model.layers.1.mlp.experts.2.up_proj.weight"));
}

}  // namespace
}  // namespace fettle::quant
