// SPDX-License-Identifier: Apache-2.0
#include "analyze/analyze.h"

#include <catch2/catch.hpp>

#include "analyze/calibration.h"
#include "core/error.h"
#include "io/checksum.h"
#include "runs.h"
#include "sweep/micro_batches.h"

namespace fettle::analyze {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::random_data;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using testing::kAll;
using testing::require_equal;
using testing::run;

TEST_CASE("Counts add up to the tokens' choices") {
  TinyModelOptions options;
  options.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  const TinyModel tiny(options);
  const auto data = random_data(5, 7, 11);
  const auto scores = run(tiny, data, {.scores = kAll});
  REQUIRE(scores.tokens == 35);
  REQUIRE(scores.neuron_scores().size() == 8);
  REQUIRE(scores.expert_scores().size() == 4);
  const model::ModelReader reader(tiny.path());
  REQUIRE(scores.model_fingerprint == reader.fingerprint());
  for (std::size_t l = 0; l < 2; ++l) {
    const auto& layer = scores.layers[l];
    REQUIRE(layer.widths == options.widths[l]);
    REQUIRE(layer.tokens.sum().item<int>() == 35 * 2);
    REQUIRE(layer.expert.at("frequency").sum().item<float>() == 70);
    for (const auto& [name, values] : layer.neuron) {
      CAPTURE(name);
      REQUIRE(values.numel() == layer.total_width());
      REQUIRE(values.min().item<float>() >= 0);
    }
    // A distribution over four experts has at most ln 4 nats.
    REQUIRE(layer.router_entropy > 0);
    REQUIRE(layer.router_entropy <= std::log(4.0) + 1e-6);
    // Renormalised mixing weights sum to one a token.
    if (tiny.config().router.renormalize) {
      REQUIRE(
          layer.expert.at("gate_mass").sum().item<float>() ==
          Approx(35).epsilon(1e-5));
    }
  }
}

TEST_CASE("The same analysis gives the same bits") {
  const TinyModel tiny;
  const auto data = random_data(6, 9, 11);
  const AnalyzeOptions options{
      .scores = kAll, .micro_batch_tokens = 20, .chunk_tokens = 30};
  require_equal(run(tiny, data, options), run(tiny, data, options), 0);
}

TEST_CASE("Micro-batches and chunks change nothing but rounding") {
  const TinyModel tiny;
  const auto data = random_data(9, 9, 11);
  const AnalyzeOptions whole{.scores = kAll, .batch_sequences = 4};
  AnalyzeOptions cut = whole;
  cut.micro_batch_tokens = GENERATE(9, 20, 1000);
  cut.chunk_tokens = GENERATE(0, 40, 1);
  // fp32 sums of 81 tokens in another order.
  require_equal(run(tiny, data, whole), run(tiny, data, cut), 1e-4);
}

// grad_abs of one batch is the mean absolute value of what autograd finds.
struct WeightGradients : sweep::Observer {
  std::vector<at::Tensor> mean{2};
  void begin_layer(
      sweep::Pass pass, std::int64_t, model::LayerWeights& w) override {
    if (pass != sweep::Pass::kBackward) return;
    w.experts.gate_up.set_requires_grad(true);
    w.experts.down.set_requires_grad(true);
  }
  void end_layer(
      sweep::Pass pass, std::int64_t layer, model::LayerWeights& w) override {
    if (pass != sweep::Pass::kBackward) return;
    const at::NoGradGuard no_grad;
    const at::Tensor in = w.experts.gate_up.grad().abs().sum(1);
    mean[layer] = w.experts.down.grad().abs().sum(1);
    for (std::int64_t e = 0; e < w.experts.size(); ++e) {
      const std::int64_t o = w.experts.offsets[e];
      const std::int64_t width = w.experts.width(e);
      mean[layer].narrow(0, o, width).add_(in.narrow(0, 2 * o, width));
      mean[layer].narrow(0, o, width).add_(in.narrow(0, 2 * o + width, width));
    }
    mean[layer].div_(3.0 * 8);
    for (at::Tensor* t : {&w.experts.gate_up, &w.experts.down}) {
      t->mutable_grad().reset();
      t->set_requires_grad(false);
    }
  }
};

TEST_CASE("grad_abs is what autograd finds") {
  const TinyModel tiny;
  const auto data = random_data(4, 9, 11);
  const auto scores =
      run(tiny, data, {.scores = {"grad_abs"}, .micro_batch_tokens = 20});
  model::CausalLm model(tiny.path(), {});
  const auto batches = sweep::micro_batches(data, 1000, 11);
  sweep::Sweep sweep(model, batches, {});
  WeightGradients gradients;
  sweep::Observer* const observers[] = {&gradients};
  sweep.forward({}, {.keep_boundaries = true});
  sweep.token_nll_with_gradient(
      1.0 / static_cast<double>(sweep::loss_tokens(batches)));
  sweep.backward(observers);
  for (std::size_t l = 0; l < 2; ++l) {
    const at::Tensor expected = gradients.mean[l];
    REQUIRE(expected.max().item<double>() > 0);
    REQUIRE(at::allclose(
        scores.layers[l].neuron.at("grad_abs"),
        expected,
        1e-4,
        1e-6 * expected.max().item<double>()));
  }
}

TEST_CASE("Chunks and batches never straddle") {
  const auto data = random_data(10, 5, 11);
  const CalibrationOptions options{
      .micro_batch_tokens = 10,
      .batch_sequences = 3,
      .chunk_tokens = 32,
      .vocab_size = 11};
  // Batches of 15 tokens: two to a chunk, the last chunk short.
  REQUIRE(chunk_starts(data, options) == std::vector<std::size_t>{0, 6, 10});
  const CalibrationChunk chunk = make_chunk(data, 6, 10, options);
  REQUIRE(chunk.tokens == 20);
  REQUIRE(chunk.batches.size() == 2);
  REQUIRE(chunk.batches[0].micro_batches == 2);
  REQUIRE(chunk.batches[0].loss_tokens == 12);
  REQUIRE(chunk.batches[1].micro_batches == 1);
  REQUIRE(chunk.batches[1].loss_tokens == 4);
  REQUIRE(chunk.micro_batches.size() == 3);
  CalibrationOptions single = options;
  single.chunk_tokens = 0;
  REQUIRE(chunk_starts(data, single) == std::vector<std::size_t>{0, 10});
}

TEST_CASE("Data that can't be scored is refused") {
  const TinyModel tiny;
  const std::string score = GENERATE("mask_fisher", "wanda");
  REQUIRE_THROWS_WITH(
      run(tiny, {}, {.scores = {score}}), Contains("at least one token"));
  REQUIRE_THROWS_WITH(
      run(tiny, std::vector<model::Sequence>(3), {.scores = {score}}),
      Contains("at least one token"));
  const auto single = random_data(3, 1, 11);
  if (score == "wanda") {
    REQUIRE_NOTHROW(run(tiny, single, {.scores = {score}}));
  } else {
    REQUIRE_THROWS_WITH(
        run(tiny, single, {.scores = {score}}),
        Contains("at least one scored token"));
  }
  REQUIRE_THROWS_WITH(
      run(tiny, single, {.scores = {"magic"}}), Contains("no such score"));
}

TEST_CASE("A model without experts is refused") {
  TinyModelOptions options;
  options.changes = {{"mlp_only_layers", {0, 1}}};
  const TinyModel tiny(options);
  REQUIRE_THROWS_WITH(
      run(tiny, random_data(1, 4, 11), {}), Contains("found none in any"));
}

TEST_CASE("A score that overflows names layer and expert") {
  TinyModelOptions options;
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    if (id.role == model::Role::kExpertUp && id.layer == 1 && id.expert == 2) {
      tensor.mul_(1e30);
    }
    return tensor;
  };
  const TinyModel tiny(options);
  REQUIRE_THROWS_WITH(
      run(tiny, random_data(4, 9, 11), {.scores = {"wanda"}}),
      Contains("layer 1, expert 2: score wanda is not finite"));
}

TEST_CASE("Memory beside the sweeps is told") {
  const auto config = fettle::testing::tiny_config({});
  // 48 neurons: fp64 sums and fp32 results, of the mean and of each score.
  REQUIRE(analyze_bytes(config, {"reap"}) == 48 * 12);
  REQUIRE(analyze_bytes(config, {"mask_fisher"}) == 48 * 24);
  REQUIRE(analyze_bytes(config, {"wanda"}) == 48 * (24 + 8));
  REQUIRE(analyze_bytes(config, {"grad_abs"}) == 48 * 24 + 3 * 4 * 8 * 24);
  // Four experts' moments of 6 x 6 and one of 8 x 8, once more in fp64, and
  // what each thread works on.
  const std::int64_t work = 6 * 6 * 6 + 2 * 6 * 8;
  REQUIRE(
      analyze_bytes(config, {"obs"}) ==
      48 * 24 + 4 * (4 * 36 + 64) + 8 * 64 + 8 * at::get_num_threads() * work);
}

TEST_CASE("What a score holds of a layer on a card is planned for") {
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  sweep::Workload workload;
  workload.device = at::Device(at::kCUDA, 0);
  workload.tokens = 100;
  workload.longest_sequence = 10;
  const sweep::Budget budget{.ram = 1 << 30, .vram = 1 << 30};
  const auto before = sweep::plan_sweep(reader, workload, budget);
  workload.extra_vram_bytes =
      analyze_layer_bytes(reader.config(), {"grad_abs", "wanda"});
  REQUIRE(workload.extra_vram_bytes == 3 * 4 * 8 * 24);
  const auto after = sweep::plan_sweep(reader, workload, budget);
  REQUIRE(
      after.vram_bytes() == before.vram_bytes() + workload.extra_vram_bytes);
  workload.extra_vram_bytes = 1 << 30;
  REQUIRE_THROWS_WITH(
      sweep::plan_sweep(reader, workload, budget), Contains("--vram"));
}

TEST_CASE("A chunk holds what fits into memory, where that moves less") {
  sweep::SweepPlan plan;
  plan.workload.tokens = 1000;
  plan.workload.longest_sequence = 10;
  plan.workload.backward = true;
  plan.activation_bytes = 1000;
  REQUIRE(chunk_tokens_within(plan, 10) == 0);
  plan.spilled_bytes = 3000;
  // Three more readings of the weights, both ways, against 2 x 3000.
  REQUIRE(chunk_tokens_within(plan, 999) == 250);
  REQUIRE(chunk_tokens_within(plan, 1001) == 0);
  plan.workload.longest_sequence = 300;
  REQUIRE(chunk_tokens_within(plan, 999) == 0);
}

TEST_CASE("obs needs all tokens in one chunk") {
  const TinyModel tiny;
  const auto data = random_data(4, 9, 11);
  REQUIRE_THROWS_WITH(
      run(tiny, data, {.scores = {"obs"}, .chunk_tokens = 9}),
      Contains("obs: expected all tokens in one chunk"));
}

TEST_CASE("obs doesn't depend on micro-batches beyond rounding") {
  TinyModelOptions options;
  options.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  const TinyModel tiny(options);
  const auto data = random_data(9, 9, 11);
  const auto whole = run(tiny, data, {.scores = {"obs"}});
  const auto cut =
      run(tiny, data, {.scores = {"obs"}, .micro_batch_tokens = 20});
  // fp32 moments of 81 tokens in another order, inverted with little damping.
  require_equal(whole, cut, 1e-2);
  for (const auto& layer : whole.layers) {
    REQUIRE(layer.neuron.at("obs").min().item<float>() > 0);
  }
}

TEST_CASE("obs from kept moments is obs, in one chunk or in several") {
  TinyModelOptions shape;
  shape.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  const TinyModel tiny(shape);
  const auto data = random_data(9, 9, 11);
  const auto plain = run(tiny, data, {.scores = {"obs"}});
  AnalyzeOptions options{.scores = {"obs"}, .keep_moments = true};
  require_equal(plain, run(tiny, data, options), 0);
  options.chunk_tokens = 27;
  const auto chunks = run(tiny, data, options);
  // As for micro-batches.
  require_equal(plain, chunks, 1e-2);
  // Two sums of 36 + 9 + 25 and of 1 + 36 + 36 + 4 pairs.
  REQUIRE(chunks.layers.back().sums.at("obs.moment").values.numel() == 77);
  REQUIRE(
      kept_moment_bytes(
          model::ModelReader(tiny.path()).config(), {"wanda", "obs"}) ==
      16 * (70 + 77));
}

}  // namespace
}  // namespace fettle::analyze
