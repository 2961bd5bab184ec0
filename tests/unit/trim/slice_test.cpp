// SPDX-License-Identifier: Apache-2.0
#include "trim/slice.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "core/error.h"
#include "scores.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"
#include "trim/plan.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using model::Role;

// Cuts neurons of both layers and expert 1 of layer 1.
artifact::TrimPlan sample_plan(const model::ModelReader& reader) {
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  plan.layers = {
      {{{0, {0, 2, 5}}, {1, {}}, {2, {0, 1, 2, 3, 4, 5}}, {3, {4}}}, 2},
      {{{0, {1}}, {2, {2, 3}}, {3, {0, 1, 2, 3, 4, 5}}}, 2}};
  return plan;
}

artifact::ScoreFile sample_scores(const model::ModelReader& reader) {
  auto scores = neuron_scores(
      reader.config(),
      {std::vector<float>(24, 1.0f), std::vector<float>(24, 1.0f)});
  scores.model_fingerprint = sample_plan(reader).model_fingerprint;
  auto generator = at::detail::createCPUGenerator(9);
  for (auto& layer : scores.layers) {
    layer.mean_h = at::randn({24}, generator, at::kFloat);
  }
  return scores;
}

TEST_CASE("Kept rows and columns are those of the untrimmed model") {
  TinyModelOptions options;
  options.type = GENERATE(at::kFloat, at::kBFloat16);
  options.constants = GENERATE(false, true);
  options.family = GENERATE("qwen3_moe", "ernie4_5_moe");
  options.changes = {{"moe_layer_start_index", 0}};
  const TinyModel tiny(options);
  const model::ModelReader reader(tiny.path());
  const auto plan = sample_plan(reader);
  const TemporaryFolder out;
  trim_model(reader, plan, {}, out.path());

  const model::ModelReader trimmed(out.path());
  REQUIRE(
      trimmed.config().layers[0].expert_widths ==
      std::vector<std::int64_t>{3, 0, 6, 1});
  REQUIRE(
      trimmed.config().layers[1].expert_widths ==
      std::vector<std::int64_t>{1, 2, 6});
  REQUIRE(trimmed.config().layers[1].has_constants == options.constants);
  for (const model::WeightId& id : model::model_weights(trimmed.config())) {
    CAPTURE(model::weight_name(trimmed.config(), id));
    at::Tensor expected;
    const bool by_expert = id.role == Role::kRouter ||
                           id.role == Role::kRouterCorrection ||
                           id.role == Role::kExpertConstant;
    if (model::is_expert_role(id.role)) {
      const auto& expert = plan.layers[id.layer].experts[id.expert];
      expected = reader.read({id.role, id.layer, expert.expert})
                     .index_select(
                         id.role == Role::kExpertDown ? 1 : 0,
                         at::tensor(expert.neurons, at::kLong));
    } else if (by_expert && id.layer == 1) {
      expected = reader.read(id).index_select(
          0, at::tensor(std::vector<std::int64_t>{0, 2, 3}));
    } else {
      expected = reader.read(id);
    }
    REQUIRE(trimmed.dtype(id) == expected.scalar_type());
    REQUIRE(trimmed.read(id).equal(expected));
  }
  REQUIRE(
      (artifact::TrimPlan::load(out.path() / "trim_plan.json").layers ==
       plan.layers));
}

TEST_CASE("A constant is the mean output of the neurons that were cut") {
  TinyModelOptions options;
  options.constants = GENERATE(false, true);
  const TinyModel tiny(options);
  const model::ModelReader reader(tiny.path());
  const auto plan = sample_plan(reader);
  const auto scores = sample_scores(reader);
  const TemporaryFolder out;
  trim_model(
      reader,
      plan,
      {.repair = Repair::kConstant, .scores = &scores},
      out.path());
  const model::ModelReader trimmed(out.path());
  for (std::int64_t l = 0; l < 2; ++l) {
    const at::Tensor found = trimmed.read({Role::kExpertConstant, l, -1});
    REQUIRE(found.scalar_type() == at::kFloat);
    for (std::size_t e = 0; e < plan.layers[l].experts.size(); ++e) {
      const artifact::ExpertPlan& expert = plan.layers[l].experts[e];
      const at::Tensor down =
          reader.read({Role::kExpertDown, l, expert.expert}).to(at::kDouble);
      at::Tensor expected = at::zeros({8}, at::kDouble);
      if (options.constants) {
        expected =
            reader.read({Role::kExpertConstant, l, -1})[expert.expert].to(
                at::kDouble);
      }
      for (std::int64_t k = 0; k < 6; ++k) {
        if (std::ranges::find(expert.neurons, k) != expert.neurons.end()) {
          continue;
        }
        expected =
            expected +
            down.select(1, k) *
                scores.layers[l].mean_h[6 * expert.expert + k].item<double>();
      }
      // Six fp32 terms of size 1.
      REQUIRE(at::allclose(found[e].to(at::kDouble), expected, 0.0, 1e-5));
    }
  }
}

at::Tensor final_hidden(const std::filesystem::path& folder) {
  model::CausalLm model(folder, {});
  const auto batches =
      sweep::micro_batches(fettle::testing::random_data(2, 9, 11), 64, 11);
  sweep::Sweep sweep(model, batches, {});
  sweep.forward({}, {});
  return sweep.hidden(0);
}

TEST_CASE("Cutting neurons that do nothing changes no output") {
  TinyModelOptions options;
  // Neurons 1, 3 and 4 of every expert have no output weights.
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    if (id.role == Role::kExpertDown) {
      tensor.index_fill_(
          1, at::tensor(std::vector<std::int64_t>{1, 3, 4}), 0.0);
    }
    return tensor;
  };
  const TinyModel tiny(options);
  const model::ModelReader reader(tiny.path());
  artifact::TrimPlan plan = sample_plan(reader);
  for (auto& layer : plan.layers) {
    layer.experts.clear();
    for (std::int64_t e = 0; e < 4; ++e) {
      layer.experts.push_back({e, {0, 2, 5}});
    }
  }
  const TemporaryFolder out;
  const Repair repair = GENERATE(Repair::kNone, Repair::kConstant);
  const auto scores = sample_scores(reader);
  trim_model(reader, plan, {.repair = repair, .scores = &scores}, out.path());
  const at::Tensor before = final_hidden(tiny.path());
  const at::Tensor after = final_hidden(out.path());
  // Sums of six fp32 terms, in another order.
  REQUIRE(at::allclose(after, before, 1e-5, 1e-6));
}

TEST_CASE("A constant stands in exactly for neurons that do not vary") {
  // All tokens are the same id, and attention over equal values gives that
  // value: every token of an expert has the same h, which is then its mean.
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  model::CausalLm model(tiny.path(), {});
  std::vector<model::Sequence> data(1);
  data[0].ids.assign(6, 3);
  data[0].labels = data[0].ids;
  const auto batches = sweep::micro_batches(data, 64, 11);
  artifact::ScoreFile scores = sample_scores(reader);
  struct Mean : sweep::Observer {
    artifact::ScoreFile& scores;
    explicit Mean(artifact::ScoreFile& file) : scores(file) {}
    bool wants_experts() const override { return true; }
    void on_expert(std::int64_t l, const model::ExpertView& view) override {
      scores.layers[l]
          .mean_h.narrow(0, 6 * view.expert, 6)
          .copy_(view.h.mean(0));
    }
  } mean(scores);
  sweep::Sweep before(model, batches, {});
  sweep::Observer* const observers[] = {&mean};
  before.forward(observers, {});

  // Only neurons go: the router then chooses as before.
  artifact::TrimPlan plan = sample_plan(reader);
  plan.layers[1].experts.insert(plan.layers[1].experts.begin() + 1, {1, {}});
  const TemporaryFolder out;
  trim_model(
      reader,
      plan,
      {.repair = Repair::kConstant, .scores = &scores},
      out.path());
  model::CausalLm trimmed(out.path(), {});
  sweep::Sweep after(trimmed, batches, {});
  after.forward({}, {});
  REQUIRE(at::allclose(after.hidden(0), before.hidden(0), 1e-4, 1e-5));
}

TEST_CASE("Sizes before and after are told") {
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  const TemporaryFolder out;
  const TrimResult result =
      trim_model(reader, sample_plan(reader), {}, out.path());
  REQUIRE(result.before.experts == 8);
  REQUIRE(result.after.experts == 7);
  REQUIRE(result.before.neurons == 48);
  REQUIRE(result.after.neurons == 19);
  REQUIRE(result.after.zero_width == 1);
  REQUIRE(result.after.min_width == 0);
  REQUIRE(result.after.median_width == 2.0);
  // 29 neurons of 3 x 8 values and a router row of 8, in fp32.
  REQUIRE(result.before.bytes - result.after.bytes == 4 * (29 * 24 + 8));
  const Json manifest = read_json(out.path() / "fettle.json", "test");
  REQUIRE(manifest["stages"][0]["measured"] == result.to_json());
  const TrimResult planned =
      trimmed_size(reader, sample_plan(reader), Repair::kNone);
  REQUIRE(planned.to_json() == result.to_json());
}

TEST_CASE("A model's bytes are met by a budget of bytes") {
  TinyModelOptions options;
  options.type = GENERATE(at::kFloat, at::kBFloat16);
  const TinyModel tiny(options);
  const model::ModelReader reader(tiny.path());
  const bool constants = GENERATE(false, true);
  // Scores that cut neurons in both layers, so that both get constants.
  auto scores = sample_scores(reader);
  for (auto& layer : scores.layers) {
    layer.neuron["obs"] = layer.mean_h.abs();
  }
  TrimOptions budget;
  budget.bytes = model_bytes(reader, {.constants = constants});
  const Repair repair = constants ? Repair::kConstant : Repair::kNone;
  const std::int64_t whole =
      trimmed_size(reader, sample_plan(reader), repair).before.bytes;
  budget.budget = whole - 600;
  const auto plan = plan_trim(scores, reader.config(), budget);
  const std::int64_t size = trimmed_size(reader, plan, repair).after.bytes;
  REQUIRE(size <= *budget.budget);
  REQUIRE(size + budget.bytes.per_neuron > *budget.budget);
}

TEST_CASE("Plans and scores of another model are refused") {
  const TinyModel tiny;
  const TinyModel other({.seed = 2});
  const model::ModelReader reader(tiny.path());
  const model::ModelReader other_reader(other.path());
  const TemporaryFolder out;
  const auto other_scores = sample_scores(other_reader);
  REQUIRE_THROWS_WITH(
      trim_model(
          reader, sample_plan(reader), {.scores = &other_scores}, out.path()),
      Contains("those of another model"));
  REQUIRE_THROWS_WITH(
      trim_model(reader, sample_plan(other_reader), {}, out.path()),
      Contains("another model's scores"));
  REQUIRE(std::filesystem::is_empty(out.path()));
}

TEST_CASE("A repair without mean activations is refused") {
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  auto scores = sample_scores(reader);
  scores.layers[1].mean_h.reset();
  const TemporaryFolder out;
  REQUIRE_THROWS_WITH(
      trim_model(
          reader,
          sample_plan(reader),
          {.repair = Repair::kConstant, .scores = &scores},
          out.path()),
      Contains("layer 1: repair constant needs the mean activations"));
  REQUIRE(std::filesystem::is_empty(out.path()));
}

}  // namespace
}  // namespace fettle::trim
