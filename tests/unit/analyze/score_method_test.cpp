// SPDX-License-Identifier: Apache-2.0
// Each score on views made by hand, whose sums are known.
#include "analyze/score_method.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "../artifact/tiny_model.h"
#include "core/error.h"

namespace fettle::analyze {
namespace {

using Catch::Matchers::Contains;
using sweep::Pass;

// One layer of two experts of widths 2 and 1; hidden size 8.
model::ModelConfig sample_config() {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"num_hidden_layers", 1}, {"num_experts", 2}};
  options.widths = {{2, 1}};
  return fettle::testing::tiny_config(options);
}

model::LayerWeights sample_weights() {
  model::LayerWeights weights;
  weights.input_norm = at::ones({8});
  weights.experts.offsets = {0, 2, 3};
  weights.experts.down = at::zeros({3, 8});
  weights.experts.gate_up = at::zeros({6, 8});
  // Norms 5, 1, 2 of down; gate 2, 3 and 7, up 10, 20 and 30.
  const float down[] = {5, 1, 2};
  const float gate_up[] = {2, 3, 10, 20, 7, 30};
  for (int k = 0; k < 3; ++k) weights.experts.down[k][k] = down[k];
  for (int k = 0; k < 6; ++k) weights.experts.gate_up[k][k] = gate_up[k];
  return weights;
}

at::Tensor matrix(std::vector<std::vector<float>> rows) {
  std::vector<at::Tensor> tensors;
  for (const auto& row : rows) tensors.push_back(at::tensor(row));
  return at::stack(tensors);
}

// y has norms 1 and 2.
model::ExpertView sample_view(std::int64_t expert, at::Tensor h) {
  at::Tensor y = at::zeros({2, 8});
  y[0][0] = 1;
  y[1][1] = 2;
  return {
      expert,
      at::arange(2),
      at::zeros({2, 8}),
      at::zeros({2, 2 * h.size(1)}),
      h,
      y,
      at::tensor({0.5f, 0.25f})};
}

// A score of the table with the observer that sums it.
struct Summed {
  explicit Summed(std::string_view name, std::uint64_t seed = 0)
      : config(sample_config()),
        method(find_score(name)),
        observer(method.make({config, seed})) {}

  ScoreObserver* operator->() { return observer.get(); }
  at::Tensor score() const {
    return method.score(observer->sums(0), config.layers[0].expert_widths);
  }

  model::ModelConfig config;
  const ScoreMethod& method;
  std::unique_ptr<ScoreObserver> observer;
};

bool equals(const at::Tensor& found, std::vector<float> expected) {
  return found.scalar_type() == at::kFloat &&
         at::allclose(found, at::tensor(expected), 1e-6, 0.0);
}

// Two tokens of weights 0.5 and 0.25, unit vectors as input, and output
// gradients of norms 3 and 4.
model::ExpertGradView grad_view(
    std::int64_t expert, at::Tensor h, at::Tensor dh) {
  at::Tensor x = at::zeros({2, 8});
  at::Tensor dy = at::zeros({2, 8});
  x[0][0] = 1;
  x[1][1] = 2;
  dy[0][0] = 3;
  dy[1][1] = 4;
  return {
      expert,
      x,
      h,
      dh,
      at::cat({dh, 2 * dh}, 1),
      dy,
      at::tensor({0.5f, 0.25f})};
}

TEST_CASE("The table names every score once and knows its unit") {
  std::set<std::string_view> names;
  for (const ScoreMethod& method : score_methods()) {
    names.insert(method.name);
    REQUIRE(&find_score(method.name) == &method);
    REQUIRE_FALSE(method.help.empty());
  }
  REQUIRE(names.size() == score_methods().size());
  REQUIRE(find_score("reap").unit == Unit::kExpert);
  REQUIRE(find_score("wanda").needs_backward == false);
  REQUIRE(find_score("mask_fisher").needs_backward == true);
  REQUIRE_THROWS_WITH(
      find_score("magic"),
      Contains("magic") && Contains("mask_fisher, weight_fisher"));
}

TEST_CASE("mask_fisher sums squares of h dL/dh") {
  Summed observer("mask_fisher");
  model::LayerWeights weights = sample_weights();
  observer->begin_layer(Pass::kBackward, 0, weights);
  const at::Tensor h = matrix({{1, 2}, {3, 4}});
  const at::Tensor dh = matrix({{1, 0.5}, {-1, 1}});
  observer->on_expert_gradient(0, grad_view(0, h, dh));
  observer->on_expert_gradient(0, grad_view(0, h, dh));
  observer->end_layer(Pass::kBackward, 0, weights);
  REQUIRE(equals(observer.score(), {20, 34, 0}));
}

TEST_CASE("expert_fisher sums squares of a token's whole derivative") {
  Summed observer("expert_fisher");
  model::LayerWeights weights = sample_weights();
  const at::Tensor h = matrix({{1, 2}, {3, 4}});
  const at::Tensor dh = matrix({{1, 0.5}, {-1, 1}});
  SECTION("of the neurons") {
    observer->begin_layer(Pass::kBackward, 0, weights);
    observer->on_expert_gradient(0, grad_view(0, h, dh));
    observer->end_layer(Pass::kBackward, 0, weights);
    // (1 + 1)^2 + (-3 + 4)^2
    REQUIRE(equals(observer.score(), {5, 0}));
  }
  SECTION("and of a constant") {
    weights.experts.constant = at::zeros({2, 8});
    weights.experts.constant[0][0] = 1;
    weights.experts.constant[0][1] = 0.5;
    observer->begin_layer(Pass::kBackward, 0, weights);
    observer->on_expert_gradient(0, grad_view(0, h, dh));
    observer->end_layer(Pass::kBackward, 0, weights);
    // (2 + 3 x 1)^2 + (1 + 4 x 0.5)^2
    REQUIRE(equals(observer.score(), {34, 0}));
  }
}

TEST_CASE("weight_fisher is the squared norm of each token's gradients") {
  Summed observer("weight_fisher");
  model::LayerWeights weights = sample_weights();
  observer->begin_layer(Pass::kBackward, 0, weights);
  // Of gate and up, 1 and 2 times dh: 5 |x|^2 dh^2, |x|^2 1 then 4.
  observer->on_expert_gradient(
      0, grad_view(0, matrix({{1, 2}, {3, 0}}), matrix({{1, 0}, {0, 2}})));
  observer->end_layer(Pass::kBackward, 0, weights);
  REQUIRE(
      equals(observer.score(), {5 * 1 + 1 * 9 + 9 * 16, 4 * 9 + 5 * 4 * 4, 0}));
}

TEST_CASE("heapr is what the whole covariance of the gradients gives") {
  Summed observer("heapr");
  model::LayerWeights weights = sample_weights();
  // Small integers, so that no order of sums rounds.
  const at::Tensor w = at::randint(-4, 5, {2, 8}, at::kFloat);
  const at::Tensor g = at::randint(-4, 5, {2, 8}, at::kFloat);
  const at::Tensor h = at::randint(1, 5, {2, 2}, at::kFloat);
  const at::Tensor p = at::tensor({0.5f, 0.25f}).unsqueeze(1);
  model::ExpertGradView view = grad_view(0, h, at::mm(g, w.t()) * p);
  observer->begin_layer(Pass::kBackward, 0, weights);
  observer->on_expert_gradient(0, view);
  // A token without weight says nothing of g.
  view.weight = at::zeros({2});
  view.dh = at::zeros({2, 2});
  observer->on_expert_gradient(0, view);
  observer->end_layer(Pass::kBackward, 0, weights);
  const at::Tensor covariance = at::mm(g.t(), g) / 2;
  const at::Tensor energy = at::mm(at::mm(w, covariance), w.t()).diagonal();
  const at::Tensor expected = (h * p).square().mean(0) * energy;
  const at::Tensor found = observer.score();
  REQUIRE((expected > 0).all().item<bool>());
  REQUIRE(at::allclose(found.narrow(0, 0, 2), expected, 1e-5, 0.0));
  REQUIRE(found[2].item<float>() == 0);
}

TEST_CASE("camera blends the sum of squares with the largest") {
  Summed observer("camera");
  model::LayerWeights weights = sample_weights();
  observer->begin_layer(Pass::kForward, 0, weights);
  observer->on_expert(0, sample_view(0, matrix({{2, 0}, {0, 4}})));
  observer->on_expert(0, sample_view(0, matrix({{4, 0}, {8, 0}})));
  observer->end_layer(Pass::kForward, 0, weights);
  // Weighted squares 1, 4, 4 of the first neuron, 1 of the second.
  const float first = 25 * (0.1f * 9 + 0.9f * 4);
  REQUIRE(equals(observer.score(), {first, 1, 0}));
}

TEST_CASE("Sums taken from one observer go on in another") {
  const std::string name = GENERATE(
      "mask_fisher", "grad_abs", "heapr", "weight_fisher", "expert_fisher");
  model::LayerWeights weights = sample_weights();
  const GradientBatch batches[] = {{1, 2}};
  const auto pass = [&](Summed& observer, float scale) {
    observer->begin_sweeps(batches);
    observer->begin_layer(Pass::kBackward, 0, weights);
    const at::Tensor h = matrix({{1, 2}, {3, 4}}) * scale;
    observer->on_expert_gradient(0, grad_view(0, h, h));
    observer->end_micro_batch(Pass::kBackward, 0, 0);
    observer->end_layer(Pass::kBackward, 0, weights);
  };
  Summed whole(name);
  pass(whole, 1);
  Summed second(name);
  second->restore(0, whole->sums(0));
  pass(whole, 3);
  pass(second, 3);
  REQUIRE(whole.score().max().item<float>() > 0);
  REQUIRE(whole.score().equal(second.score()));
}

TEST_CASE("grad_abs takes the absolute value of a whole batch's gradient") {
  Summed observer("grad_abs");
  model::LayerWeights weights = sample_weights();
  // Expert 1 (one neuron), one token a micro-batch; x and dy are unit vectors.
  const auto show = [&](float gate, float up, float h) {
    at::Tensor x = at::zeros({1, 8});
    x[0][0] = 1;
    observer->on_expert_gradient(
        0,
        {1,
         x,
         matrix({{h}}),
         at::zeros({1, 1}),
         matrix({{gate, up}}),
         x,
         at::ones({1})});
  };
  SECTION("a batch in one micro-batch") {
    const GradientBatch batches[] = {{1, 2}, {1, 4}};
    observer->begin_sweeps(batches);
    observer->begin_layer(Pass::kBackward, 0, weights);
    show(1, -2, 3);
    observer->end_micro_batch(Pass::kBackward, 0, 0);
    show(-1, 2, -3);
    observer->end_micro_batch(Pass::kBackward, 0, 1);
    observer->end_layer(Pass::kBackward, 0, weights);
    // (1 + 2 + 3) / 24 weights, over 2 and over 4 tokens; mean of two batches.
    REQUIRE(equals(observer.score(), {0, 0, 6.f / 24 * (0.5f + 0.25f) / 2}));
  }
  SECTION("a batch in two micro-batches, which cancel in part") {
    const GradientBatch batches[] = {{2, 2}};
    observer->begin_sweeps(batches);
    observer->begin_layer(Pass::kBackward, 0, weights);
    show(1, -2, 3);
    observer->end_micro_batch(Pass::kBackward, 0, 0);
    show(-1, 2, 1);
    observer->end_micro_batch(Pass::kBackward, 0, 1);
    observer->end_layer(Pass::kBackward, 0, weights);
    REQUIRE(equals(observer.score(), {0, 0, 4.f / 24 / 2}));
  }
  SECTION("a batch without scored tokens counts for nothing") {
    const GradientBatch batches[] = {{1, 0}, {1, 2}};
    observer->begin_sweeps(batches);
    observer->begin_layer(Pass::kBackward, 0, weights);
    show(0, 0, 0);
    observer->end_micro_batch(Pass::kBackward, 0, 0);
    show(1, -2, 3);
    observer->end_micro_batch(Pass::kBackward, 0, 1);
    observer->end_layer(Pass::kBackward, 0, weights);
    REQUIRE(equals(observer.score(), {0, 0, 6.f / 24 / 2}));
  }
}

TEST_CASE("wanda multiplies norms of weights and of weighted activations") {
  Summed observer("wanda");
  model::LayerWeights weights = sample_weights();
  observer->begin_layer(Pass::kForward, 0, weights);
  observer->on_expert(0, sample_view(0, matrix({{2, 0}, {0, 4}})));
  observer->on_expert(0, sample_view(0, matrix({{0, 0}, {0, 0}})));
  observer->end_layer(Pass::kForward, 0, weights);
  REQUIRE(equals(observer.score(), {5, 1, 0}));
}

TEST_CASE("magnitude multiplies the norms of a neuron's weights") {
  Summed observer("magnitude");
  model::LayerWeights weights = sample_weights();
  observer->begin_layer(Pass::kForward, 0, weights);
  REQUIRE(equals(observer.score(), {5 * 2 * 10, 1 * 3 * 20, 2 * 7 * 30}));
}

TEST_CASE("random depends on the seed alone") {
  const at::Tensor a = Summed("random", 1).score();
  const at::Tensor b = Summed("random", 1).score();
  const at::Tensor c = Summed("random", 2).score();
  REQUIRE(a.equal(b));
  REQUIRE_FALSE(a.equal(c));
  REQUIRE(a.min().item<float>() >= 0);
  REQUIRE(a.max().item<float>() < 1);
}

TEST_CASE("Expert scores count what the router chose") {
  model::LayerWeights weights = sample_weights();
  // Three tokens: the first and last choose expert 0, the second expert 1.
  const at::Tensor x = at::zeros({3, 8});
  const at::Tensor logits = at::zeros({3, 2});
  const at::Tensor probs = at::full({3, 2}, 0.5);
  const at::Tensor selected =
      at::tensor(std::vector<std::int64_t>{0, 1, 0}).unsqueeze(1);
  const at::Tensor mixing = at::tensor({0.5f, 0.75f, 0.25f}).unsqueeze(1);
  const auto score = [&](std::string_view name) {
    Summed observer(name);
    observer->begin_layer(Pass::kForward, 0, weights);
    observer->on_routing(0, {x, logits, probs, selected, mixing});
    observer->on_expert(0, sample_view(0, matrix({{1, 1}, {1, 1}})));
    observer->end_layer(Pass::kForward, 0, weights);
    return observer.score();
  };
  REQUIRE(equals(score("frequency"), {2, 1}));
  REQUIRE(equals(score("gate_mass"), {0.75, 0.75}));
  // (0.5 x 1 + 0.25 x 2) over two tokens; expert 1 was not shown.
  REQUIRE(equals(score("reap"), {0.5, 0}));

  // The output of an expert without neurons is its constant, of norm 5.
  weights.experts.offsets = {0, 3, 3};
  weights.experts.constant = at::zeros({2, 8});
  weights.experts.constant[1][0] = 3;
  weights.experts.constant[1][1] = 4;
  REQUIRE(equals(score("reap"), {0.5, 0.75 * 5}));
}

}  // namespace
}  // namespace fettle::analyze
