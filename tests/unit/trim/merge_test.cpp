// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "scores.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"
#include "trim/merge_plan.h"
#include "trim/merged_expert.h"
#include "trim/slice.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using model::Role;
using Groups = std::vector<ExpertGroup>;

const std::vector<std::int64_t> kShuffle{3, 0, 5, 1, 4, 2};

at::Tensor shuffled(const at::Tensor& tensor, std::int64_t axis) {
  return tensor.index_select(axis, at::tensor(kShuffle, at::kLong));
}

at::Tensor matrix(const std::vector<double>& values, std::int64_t columns) {
  return at::tensor(values, at::kDouble).view({-1, columns});
}

ExpertTensors random_expert(std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return {
      at::randn({6, 8}, generator, at::kFloat),
      at::randn({6, 8}, generator, at::kFloat),
      at::randn({8, 6}, generator, at::kFloat)};
}

TEST_CASE("Neurons are matched to the permutation that hides them") {
  const ExpertTensors expert = random_expert(1);
  const ExpertTensors other{
      shuffled(expert.gate, 0),
      shuffled(expert.up, 0),
      shuffled(expert.down, 1)};
  const auto order = matched_neurons(expert, other);
  REQUIRE(other.gate.index_select(0, at::tensor(order, at::kLong))
              .equal(expert.gate));
  MergedExpert merged(true);
  merged.add(expert, 0.25);
  merged.add(other, 0.75);
  const ExpertTensors mean = merged.mean();
  REQUIRE(mean.gate.equal(expert.gate));
  REQUIRE(mean.up.equal(expert.up));
  REQUIRE(mean.down.equal(expert.down));
  MergedExpert blind(false);
  blind.add(expert, 0.25);
  blind.add(other, 0.75);
  REQUIRE(blind.mean().gate.equal(
      (0.25 * expert.gate.to(at::kDouble) + 0.75 * other.gate.to(at::kDouble))
          .to(at::kFloat)));
}

TEST_CASE("Experts join the dominant one that routers treat alike") {
  // Logits of four experts for three tokens: 0 and 2 alike but for their size,
  // 3 the opposite of 1.
  const at::Tensor logits =
      matrix({1, 2, 2, -2, /**/ 0, 3, 0, -3, /**/ -1, 1, -2, -1}, 4);
  const at::Tensor gram = at::mm(logits.t(), logits);
  REQUIRE(group_by_router(gram, {0, 1}) == Groups{{0, 2, 3}, {1}});
  REQUIRE(group_by_router(gram, {1, 2}) == Groups{{1}, {2, 0, 3}});
  REQUIRE(group_by_router(gram, {0, 1, 2, 3}) == Groups{{0}, {1}, {2}, {3}});
}

TEST_CASE("Experts of like outputs are clustered") {
  const at::Tensor outputs = matrix(
      {0, 0, /**/ 5, 5, /**/ 0.1, 0, /**/ 9, 9, /**/ 5, 5.2, /**/ 0, 0.3}, 2);
  const std::vector<std::int64_t> tokens{1, 2, 9, 4, 8, 9};
  REQUIRE(
      cluster_by_output(outputs, tokens, 3) == Groups{{2, 0, 5}, {3}, {4, 1}});
  REQUIRE(
      cluster_by_output(outputs, tokens, 2) == Groups{{2, 0, 5}, {4, 1, 3}});
  REQUIRE(cluster_by_output(outputs, tokens, 6).size() == 6);
}

TEST_CASE("Clusters are linked by mean distance") {
  // By the nearest members 2 would join {0, 1}, by the farthest {3, 4}.
  const at::Tensor outputs = matrix({0, 2, 5, 7.9, 8}, 1);
  // Means: 2 to {0, 1}: 4; to {3, 4}: 2.95.
  REQUIRE(
      cluster_by_output(outputs, {5, 4, 3, 2, 1}, 2) ==
      Groups{{0, 1}, {2, 3, 4}});
}

artifact::TrimPlan keep_experts(
    const model::ModelReader& reader, std::vector<std::int64_t> experts) {
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  for (const model::LayerConfig& layer : reader.config().layers) {
    artifact::LayerPlan made{{}, layer.top_k};
    for (const std::int64_t e : experts) {
      made.experts.push_back({e, {0, 1, 2, 3, 4, 5}});
    }
    plan.layers.push_back(std::move(made));
  }
  return plan;
}

MergeInput input_of(model::CausalLm& model) {
  return {
      model,
      sweep::micro_batches(fettle::testing::random_data(6, 16, 11), 32, 11)};
}

// Expert 2 is expert 0 with its neurons in another order; their router rows are
// nearly the same, so that both are like each other by any measure.
TinyModelOptions with_twins() {
  TinyModelOptions options;
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    static at::Tensor first[3];
    if (id.role == Role::kRouter) tensor[2] = tensor[0] * 1.01;
    const int slot =
        static_cast<int>(id.role) - static_cast<int>(Role::kExpertGate);
    if (slot < 0 || slot > 2) return tensor;
    if (id.expert == 0) first[slot] = tensor;
    if (id.expert != 2) return tensor;
    return shuffled(first[slot], id.role == Role::kExpertDown ? 1 : 0)
        .contiguous();
  };
  return options;
}

TEST_CASE("Twins are merged into what both were") {
  TinyModelOptions options = with_twins();
  options.type = GENERATE(at::kFloat, at::kBFloat16);
  options.constants = GENERATE(false, true);
  const TinyModel tiny(options);
  model::CausalLm model(tiny.path(), {});
  const auto plan = keep_experts(model.reader(), {0, 1, 3});
  const MergePlan merge = plan_merge(input_of(model), plan, Merge::kMSmoe);
  const TemporaryFolder out;
  trim_model(
      model.reader(), merge.plan, {.merged = &merge.experts}, out.path());
  const model::ModelReader merged(out.path());
  for (std::int64_t l = 0; l < 2; ++l) {
    REQUIRE(merge.experts.groups[l] == Groups{{0, 2}, {1}, {3}});
    for (const Role role :
         {Role::kExpertGate, Role::kExpertUp, Role::kExpertDown}) {
      REQUIRE(
          merged.read({role, l, 0}).equal(model.reader().read({role, l, 0})));
      REQUIRE(
          merged.read({role, l, 1}).equal(model.reader().read({role, l, 1})));
      REQUIRE(
          merged.read({role, l, 2}).equal(model.reader().read({role, l, 3})));
    }
    const at::Tensor router = model.reader().read({Role::kRouter, l, -1});
    REQUIRE(merged.read({Role::kRouter, l, -1})
                .equal(router.index_select(
                    0, at::tensor(std::vector<std::int64_t>{0, 1, 3}))));
    if (!options.constants) continue;
    const model::WeightId id{Role::kExpertConstant, l, -1};
    const at::Tensor constants = model.reader().read(id);
    const auto& tokens = merge.experts.tokens[l];
    const double share = static_cast<double>(tokens[0]) /
                         static_cast<double>(tokens[0] + tokens[2]);
    REQUIRE(at::allclose(
        merged.read(id)[0],
        share * constants[0] + (1 - share) * constants[2],
        1e-5,
        1e-6));
  }
}

TEST_CASE("Twins of other scales are merged into what both were") {
  TinyModelOptions options = with_twins();
  options.family = "gemma4_text";
  options.edit = [twins = options.edit](
                     const model::WeightId& id, at::Tensor tensor) {
    if (id.role == Role::kExpertScale) return at::tensor({1.0, 1.2, 0.5, 0.8});
    tensor = twins(id, std::move(tensor));
    const bool second = id.role == Role::kExpertDown && id.expert == 2;
    return second ? tensor * 2.0 : tensor;
  };
  const TinyModel tiny(options);
  model::CausalLm model(tiny.path(), {});
  const auto plan = keep_experts(model.reader(), {0, 1, 3});
  const Merge method = GENERATE(Merge::kMSmoe, Merge::kHcSmoe);
  const MergePlan merge = plan_merge(input_of(model), plan, method);
  const TemporaryFolder out;
  trim_model(
      model.reader(), merge.plan, {.merged = &merge.experts}, out.path());
  const model::ModelReader merged(out.path());
  for (std::int64_t l = 0; l < 2; ++l) {
    const auto& groups = merge.experts.groups[l];
    const auto twins = std::ranges::find_if(
        groups, [](const ExpertGroup& g) { return g.size() == 2; });
    REQUIRE(twins != groups.end());
    REQUIRE(std::ranges::is_permutation(*twins, ExpertGroup{0, 2}));
    const auto place = twins - groups.begin();
    const std::int64_t first = twins->front();
    REQUIRE(merged.read({Role::kExpertScale, l, -1})[place].equal(
        model.reader().read({Role::kExpertScale, l, -1})[first]));
    if (method == Merge::kHcSmoe) continue;  // averages neurons as they come
    REQUIRE(at::allclose(
        merged.read({Role::kExpertDown, l, place}),
        model.reader().read({Role::kExpertDown, l, first})));
  }
}

TEST_CASE("HC-SMoE clusters twins by their outputs, and averages by tokens") {
  const TinyModel tiny(with_twins());
  model::CausalLm model(tiny.path(), {});
  const auto plan = keep_experts(model.reader(), {0, 1, 2});
  const MergePlan merge = plan_merge(input_of(model), plan, Merge::kHcSmoe);
  const TemporaryFolder out;
  trim_model(
      model.reader(), merge.plan, {.merged = &merge.experts}, out.path());
  const model::ModelReader merged(out.path());
  for (std::int64_t l = 0; l < 2; ++l) {
    const auto& groups = merge.experts.groups[l];
    const auto& tokens = merge.experts.tokens[l];
    const auto twins = std::ranges::find_if(
        groups, [](const ExpertGroup& g) { return g.size() == 2; });
    REQUIRE(twins != groups.end());
    REQUIRE(std::ranges::is_permutation(*twins, ExpertGroup{0, 2}));
    // The one that more tokens chose keeps its router row.
    REQUIRE(tokens[(*twins)[0]] >= tokens[(*twins)[1]]);
    const auto place = twins - groups.begin();
    REQUIRE(merge.plan.layers[l].experts[place].expert == (*twins)[0]);
    const double sum = static_cast<double>(tokens[0] + tokens[2]);
    const auto read = [&](std::int64_t e) {
      return model.reader().read({Role::kExpertUp, l, e}).to(at::kDouble);
    };
    const at::Tensor expected = (read(0) * static_cast<double>(tokens[0]) +
                                 read(2) * static_cast<double>(tokens[2])) /
                                sum;
    REQUIRE(at::allclose(
        merged.read({Role::kExpertUp, l, place}).to(at::kDouble),
        expected,
        1e-6,
        1e-7));
  }
  REQUIRE(merge.plan.options["merge"] == "hc_smoe");
  REQUIRE(merged.config().layers[0].num_experts() == 3);
}

TEST_CASE("A grouped router's experts are clustered within their groups") {
  TinyModelOptions options;
  options.family = "deepseek_v2";
  options.changes = {
      {"n_group", 2},
      {"topk_group", 2},
      {"topk_method", "group_limited_greedy"},
      {"first_k_dense_replace", 0}};
  const TinyModel tiny(options);
  model::CausalLm model(tiny.path(), {});
  const auto plan = keep_experts(model.reader(), {0, 2});
  const MergePlan merge = plan_merge(input_of(model), plan, Merge::kHcSmoe);
  for (const auto& groups : merge.experts.groups) {
    REQUIRE(groups.size() == 2);
    REQUIRE(std::ranges::is_permutation(groups[0], ExpertGroup{0, 1}));
    REQUIRE(std::ranges::is_permutation(groups[1], ExpertGroup{2, 3}));
  }
}

TEST_CASE("What can't be merged is refused") {
  const TinyModel tiny;
  model::CausalLm model(tiny.path(), {});
  auto plan = keep_experts(model.reader(), {0, 1});
  REQUIRE_THROWS_WITH(
      plan_merge({model, {}}, plan, Merge::kMSmoe),
      Contains("at least one token of calibration data"));
  plan.layers[1].experts[0].neurons = {0, 1};
  REQUIRE_THROWS_WITH(
      plan_merge(input_of(model), plan, Merge::kMSmoe),
      Contains("layer 1: merging keeps whole experts"));
  TinyModelOptions ragged;
  ragged.widths = {{6, 6, 5, 6}, {6, 6, 6, 6}};
  const TinyModel uneven(ragged);
  model::CausalLm uneven_model(uneven.path(), {});
  REQUIRE_THROWS_WITH(
      plan_merge(
          input_of(uneven_model),
          keep_experts(uneven_model.reader(), {0, 1}),
          Merge::kHcSmoe),
      Contains("layer 0: merging needs experts of one width, found 5 to 6"));
  TinyModelOptions condensed;
  condensed.condensers = {3};
  const TinyModel with_condenser(condensed);
  model::CausalLm condensed_model(with_condenser.path(), {});
  REQUIRE_THROWS_WITH(
      plan_merge(
          input_of(condensed_model),
          keep_experts(condensed_model.reader(), {0, 3}),
          Merge::kMSmoe),
      Contains("layer 0: merging averages experts that the router chooses"));
  const MergedExperts merged;
  const TemporaryFolder out;
  REQUIRE_THROWS_WITH(
      trim_model(
          model.reader(),
          keep_experts(model.reader(), {0, 1}),
          {.repair = Repair::kRidge, .merged = &merged},
          out.path()),
      Contains("merged experts are not repaired"));
}

}  // namespace
}  // namespace fettle::trim
