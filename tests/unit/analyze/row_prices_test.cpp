// SPDX-License-Identifier: Apache-2.0
#include "analyze/row_prices.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "runs.h"
#include "sweep/micro_batches.h"

namespace fettle::analyze {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::random_data;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using model::Role;

// All experts are chosen, so that outputs are smooth in every weight.
TinyModelOptions smooth() {
  TinyModelOptions options;
  options.changes = {
      {"num_experts_per_tok", 4},
      {"num_experts", 4},
      {"tie_word_embeddings", false}};
  return options;
}

// Token 0 begins each sequence and comes nowhere else.
std::vector<model::Sequence> opened_by_zero() {
  auto data = random_data(64, 4, 10);
  for (model::Sequence& sequence : data) {
    for (auto& id : sequence.ids) ++id;
    sequence.ids[0] = 0;
    sequence.labels.assign(sequence.ids.begin(), sequence.ids.end());
  }
  return data;
}

PricedScores priced(
    const TinyModel& tiny,
    const std::vector<model::Sequence>& data,
    std::uint64_t seed = 1) {
  model::CausalLm model(tiny.path(), {});
  return analyze_with_prices(model, data, {.scores = {"obs"}, .seed = seed});
}

// KL(model || changed) over all scored positions.
double total_kl(
    const TinyModel& tiny,
    const TinyModel& changed,
    const std::vector<model::Sequence>& data) {
  model::CausalLm a(tiny.path(), {});
  model::CausalLm b(changed.path(), {});
  const auto batches =
      sweep::micro_batches(data, 4096, tiny.config().vocab_size);
  sweep::Sweep first(a, batches, {});
  sweep::Sweep second(b, batches, {});
  first.forward({}, {});
  second.forward({}, {});
  double sum = 0;
  for (std::size_t m = 0; m < batches.size(); ++m) {
    const auto at = static_cast<std::int64_t>(m);
    sum += sweep::head_compare(
               b, second.hidden(at), a, first.hidden(at), batches[m].targets)
               .kl.sum(at::kDouble)
               .item<double>();
  }
  return sum;
}

TEST_CASE("An embedding's price is the KL that its errors cost") {
  const TinyModelOptions options = smooth();
  const TinyModel tiny(options);
  const auto data = opened_by_zero();
  double price = 0;
  constexpr int kSeeds = 24;
  std::int64_t tokens = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const auto found = priced(tiny, data, seed).prices;
    tokens = found.tokens;
    price += found.globals.at(Role::kEmbedTokens)[0].item<double>() / kSeeds;
  }
  REQUIRE(tokens == 64 * 3);
  // Over all directions, both ways: third orders cancel.
  constexpr double kStep = 0.02;
  double kl = 0;
  const std::int64_t hidden = tiny.config().hidden_size;
  for (std::int64_t h = 0; h < hidden; ++h) {
    for (const double step : {kStep, -kStep}) {
      TinyModelOptions changed = options;
      changed.edit = [&](const model::WeightId& id, at::Tensor tensor) {
        if (id.role == Role::kEmbedTokens) tensor[0][h] += step;
        return tensor;
      };
      kl += total_kl(tiny, TinyModel(changed), data);
    }
  }
  const double measured =
      kl / static_cast<double>(2 * hidden * tokens) / (kStep * kStep);
  // 24 x 64 samples of a squared gradient.
  REQUIRE(price == Approx(measured).epsilon(0.12));
}

// Sums that prices are made of, of one layer, in fp64.
struct Slow : sweep::Observer {
  explicit Slow(const model::ModelConfig& config)
      : inputs(config.layers[0].num_experts()),
        outputs(inputs.size()),
        weights(inputs.size()) {}
  bool wants_expert_gradients() const override { return true; }
  void on_expert_gradient(
      std::int64_t layer, const model::ExpertGradView& view) override {
    if (layer != 0) return;
    const auto square = [](const at::Tensor& x) {
      return x.detach().to(at::kDouble).square();
    };
    inputs[view.expert] = square(view.d_gate_up).sum(0);
    outputs[view.expert] = square(view.dy).sum(0);
    weights[view.expert] = square(view.weight).sum().item<double>();
  }
  std::vector<at::Tensor> inputs, outputs;
  std::vector<double> weights;
};

TEST_CASE("Prices are half the mean squares of drawn gradients") {
  const TinyModel tiny(smooth());
  const auto data = opened_by_zero();
  const auto found = priced(tiny, data, 7).prices;
  model::CausalLm model(tiny.path(), {});
  const auto batches =
      sweep::micro_batches(data, 4096, tiny.config().vocab_size);
  REQUIRE(batches.size() == 1);
  sweep::Sweep sweep(model, batches, {});
  sweep.forward({}, {.keep_boundaries = true});
  sweep.drawn_nll_with_gradient(7);
  Slow slow(tiny.config());
  sweep::Observer* const observer = &slow;
  sweep.backward(std::span(&observer, 1));
  double seen = 0;
  double input_sum = 0;
  double output_sum = 0;
  for (std::size_t e = 0; e < slow.weights.size(); ++e) {
    seen += slow.weights[e];
    input_sum += slow.inputs[e].sum().item<double>();
    output_sum += slow.outputs[e].sum().item<double>();
  }
  const double choices = 4.0 * 64 * 4;
  const std::int64_t width = tiny.config().layers[0].expert_widths[2];
  const std::int64_t hidden = tiny.config().hidden_size;
  const auto expected = [&](const at::Tensor& sums, double all, double rows) {
    const double one = seen / choices;
    return (sums + all / (seen * rows) * one) / (slow.weights[2] + one) / 2;
  };
  const at::Tensor inputs =
      expected(slow.inputs[2], input_sum, static_cast<double>(2 * width));
  const at::Tensor outputs =
      expected(slow.outputs[2], output_sum, static_cast<double>(hidden));
  const auto of = [&](Role role) {
    return found.of(tiny.config(), {role, 0, 2}).to(at::kDouble);
  };
  REQUIRE(
      at::allclose(of(Role::kExpertGate), inputs.narrow(0, 0, width), 1e-4, 0));
  REQUIRE(at::allclose(
      of(Role::kExpertUp), inputs.narrow(0, width, width), 1e-4, 0));
  REQUIRE(at::allclose(of(Role::kExpertDown), outputs, 1e-4, 0));
}

TEST_CASE("Prices cover every matrix that has an output") {
  TinyModelOptions options;
  options.family = GENERATE("qwen3_moe", "qwen2_moe");
  const TinyModel tiny(options);
  const auto result = priced(tiny, random_data(5, 7, 11));
  REQUIRE(result.scores.run["targets"] == "drawn");
  for (const model::WeightId& id : model::model_weights(tiny.config())) {
    const bool through = id.role == Role::kSharedGate ||
                         id.role == Role::kSharedUp ||
                         id.role == Role::kSharedRouter;
    if (!model::role_info(id.role).is_packable() || through) continue;
    CAPTURE(model::role_name(id.role), id.layer, id.expert);
    const at::Tensor prices = result.prices.of(tiny.config(), id);
    REQUIRE(prices.defined());
    REQUIRE(prices.size(0) == model::weight_shape(tiny.config(), id).front());
    REQUIRE(prices.sum().item<double>() > 0);
  }
}

TEST_CASE("Prices come back from their file, and only of their model") {
  const TinyModel tiny;
  const auto prices = priced(tiny, random_data(5, 7, 11)).prices;
  const TemporaryFolder folder;
  prices.save(folder.path());
  const auto load = [&](const std::string& fingerprint) {
    return artifact::RowPrices::load(folder.path(), tiny.config(), fingerprint);
  };
  const auto found = load(prices.model_fingerprint);
  REQUIRE(found.tokens == prices.tokens);
  for (std::size_t l = 0; l < prices.layers.size(); ++l) {
    REQUIRE(found.layers[l].size() == prices.layers[l].size());
    for (const auto& [role, values] : prices.layers[l]) {
      REQUIRE(found.layers[l].at(role).equal(values));
    }
    REQUIRE(found.energy[l].equal(prices.energy[l]));
  }
  REQUIRE_THROWS_WITH(load("other"), Contains("of the model other"));
  artifact::TensorFile file =
      artifact::load_tensors(folder.path() / artifact::kRowPricesFile);
  const auto write = [&] {
    artifact::save_tensors(folder.path() / artifact::kRowPricesFile, file);
  };
  file.metadata["tokens"] = "none";
  write();
  REQUIRE_THROWS_WITH(
      load(prices.model_fingerprint), Contains("a count of tokens"));
  file.metadata["tokens"] = "3";
  file.tensors.at("layers.0.prices.q_proj") = at::zeros({1}, at::kFloat);
  write();
  REQUIRE_THROWS_WITH(
      load(prices.model_fingerprint), Contains("layers.0.prices.q_proj"));
  file.metadata.erase("format");
  write();
  REQUIRE_THROWS_WITH(
      load(prices.model_fingerprint), Contains("expected row prices"));
}

TEST_CASE("Prices need a backward sweep over all tokens at once") {
  const TinyModel tiny;
  const auto data = random_data(5, 7, 11);
  model::CausalLm model(tiny.path(), {});
  REQUIRE_THROWS_WITH(
      analyze_with_prices(model, data, {.scores = {"wanda"}}),
      Contains("needs a backward sweep"));
  REQUIRE_THROWS_WITH(
      analyze_with_prices(
          model, data, {.scores = {"mask_fisher"}, .chunk_tokens = 7}),
      Contains("prices: expected all tokens in one chunk"));
}

}  // namespace
}  // namespace fettle::analyze
