// SPDX-License-Identifier: Apache-2.0
#include "tune/low_rank/low_rank.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "full_gradients.h"
#include "model/weights/weight_view.h"
#include "sweep/micro_batches.h"
#include "tiny_model.h"
#include "tune/low_rank/low_rank_delta.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;
using model::Role;

namespace {

constexpr std::int64_t kRank = 3;
constexpr LowRankKinds kAll{.experts = true, .attention = true, .dense = true};

struct LoraFixture {
  TemporaryFolder folder;
  std::unique_ptr<model::CausalLm> model;
  SilentReporter reporter;
  std::vector<model::TokenBatch> batches =
      sweep::micro_batches(sequences(5, 12), 24, kVocab);

  LoraFixture() {
    write_tiny_model(folder.path());
    model = open_model(folder.path());
  }

  LowRank part(const LowRankKinds& kinds = kAll) {
    return LowRank(
        model->reader(),
        at::kCPU,
        {.kinds = kinds,
         .rank = kRank,
         .alpha = 4.5,
         .schedule = {0.1, 0, 10, 0.0}});
  }
  void use(const LowRank& part) {
    model->set_patch([&](std::int64_t layer, model::LayerWeights& weights) {
      part.patch(layer, weights);
    });
  }
  void step(LowRank& part, std::int64_t s, int first_layer = 1) {
    use(part);
    sweep::Sweep sweep(*model, batches, {});
    std::vector<sweep::Observer*> observers{&part};
    sweep.forward(observers, {.keep_boundaries = true});
    sweep.token_nll_with_gradient(1.0);
    sweep.backward(observers, first_layer);
    for (const std::int64_t l : {0, 1, 2}) part.update(l, {s, 0.5});
  }
};

// Close enough for sums in another order.
bool close(const at::Tensor& found, const at::Tensor& expected) {
  return found.sub(expected).norm().item<double>() <=
         1e-4 * expected.norm().item<double>();
}

artifact::TensorMap state_of(const LowRank& part) {
  artifact::TensorMap state;
  part.save_state(state);
  for (auto& [name, tensor] : state) tensor = tensor.clone();
  return state;
}

// Gradients of whole matrices of a layer, by autograd alone.
class MatrixGradients : public sweep::Observer {
 public:
  void begin_layer(
      sweep::Pass, std::int64_t, model::LayerWeights& weights) override {
    for (at::Tensor* one : tensors(weights)) one->set_requires_grad(true);
  }
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    if (pass != sweep::Pass::kBackward) return;
    std::vector<at::Tensor>& into = of_layer[layer];
    for (at::Tensor* one : tensors(weights))
      into.push_back(one->grad().clone());
  }
  static std::vector<at::Tensor*> tensors(model::LayerWeights& weights) {
    std::vector<at::Tensor*> all{
        &weights.attention.q_proj,
        &weights.attention.k_proj,
        &weights.attention.v_proj,
        &weights.attention.o_proj};
    if (weights.dense.defined()) {
      all.push_back(&weights.dense.gate_up);
      all.push_back(&weights.dense.down);
    }
    return all;
  }
  std::map<std::int64_t, std::vector<at::Tensor>> of_layer;
};

}  // namespace

TEST_CASE("pairs start as PEFT's: A uniform in its bound, B zero") {
  const LowRankTarget target{2, Role::kExpertDown, {0, 6, 6, 10}, 16};
  const LowRankPairs pairs = LowRankPairs::start(target, 5, 7);
  CHECK(pairs.right.count_nonzero().item<std::int64_t>() == 0);
  CHECK(pairs.left.sizes() == at::IntArrayRef({10, 5}));
  // Transposed, so that A's inputs are the expert's own width.
  CHECK(pairs.left_of(0).abs().max().item<float>() <= 1 / std::sqrt(6.0F));
  CHECK(pairs.left_of(2).abs().max().item<float>() <= 0.5F);
  CHECK(pairs.left_of(2).abs().max().item<float>() > 0.4F);
  CHECK_FALSE(pairs.changed(0));
  CHECK_FALSE(pairs.changed(1));
  CHECK(pairs.weights() == 10 * 5 + 2 * 5 * 16);
  CHECK(LowRankPairs::start(target, 5, 7).left.equal(pairs.left));
  CHECK_FALSE(LowRankPairs::start(target, 5, 8).left.equal(pairs.left));
  // The first draw of the stream, by hand: the same bits everywhere.
  const LowRankPairs upright =
      LowRankPairs::start({1, Role::kQProj, {0, 8}, 4}, 2, 1);
  CHECK(upright.left.count_nonzero().item<std::int64_t>() == 0);
  const at::Tensor& a = upright.right;
  CHECK(a.abs().max().item<float>() <= 0.5F);
  CHECK(a.count_nonzero().item<std::int64_t>() == a.numel());
}

TEST_CASE("the sum of a layer by hand") {
  // L = [1 2]^T and R = [3 4], scaled by a half.
  const LowRankPairs pairs{
      {0, Role::kQProj, {0, 2}, 2},
      at::tensor({1.0F, 2.0F}).view({2, 1}),
      at::tensor({3.0F, 4.0F}).view({1, 2})};
  model::LayerWeights weights;
  const at::Tensor base = at::ones({2, 2});
  weights.attention.q_proj = base;
  add_pairs(pairs, 0.5F, weights);
  const at::Tensor expected = at::tensor({2.5F, 3.0F, 4.0F, 5.0F}).view({2, 2});
  CHECK(weights.attention.q_proj.equal(expected));
  CHECK(base.equal(at::ones({2, 2})));
  CHECK(with_pair(pairs, 0.5F, {Role::kQProj, 0}, base).equal(expected));
}

TEST_CASE_METHOD(
    LoraFixture, "pairs' gradients are projections of the experts' own") {
  LowRank part = this->part({.experts = true});
  step(part, 0);  // so that neither side is zero
  const artifact::TensorMap state = state_of(part);
  FullGradients full;
  run_backward(*model, batches, {&part, &full});
  const double scale = 4.5 / kRank;
  const auto widths = model->config().layers[1].expert_widths;
  double squares = 0.0;
  std::int64_t offset = 0;
  for (std::size_t e = 0; e < widths.size(); ++e) {
    const auto check = [&](const char* name,
                           const at::Tensor& gradient,
                           std::int64_t first,
                           std::int64_t rows) {
      INFO(name << " of expert " << e);
      const std::string key = std::string("lora.layers.1.") + name;
      const auto r = static_cast<std::int64_t>(e) * kRank;
      const auto left = state.at(key + ".left").narrow(0, first, rows);
      const auto right = state.at(key + ".right").narrow(0, r, kRank);
      const auto weight = gradient.narrow(0, first, rows);
      const PairGradient found = part.gradient(1, name);
      const auto d_left = at::mm(weight, right.t()) * scale;
      const auto d_right = at::mm(left.t(), weight) * scale;
      CHECK(close(found.left.narrow(0, first, rows), d_left));
      CHECK(close(found.right.narrow(0, r, kRank), d_right));
      squares += d_left.square().sum().item<double>() +
                 d_right.square().sum().item<double>();
    };
    const std::int64_t width = widths[e];
    check("expert_gate_up", full.gate_up[1], 2 * offset, 2 * width);
    check("expert_down", full.down[1], offset, width);
    offset += width;
  }
  CHECK(squares > 0.0);
  CHECK(part.gradient_norm_squared(1) == Approx(squares).epsilon(1e-4));
  CHECK(part.gradient_norm_squared(0) == 0.0);
}

TEST_CASE_METHOD(
    LoraFixture, "pairs' gradients are projections of other matrices' own") {
  LowRank part = this->part({.attention = true, .dense = true});
  step(part, 0, 0);
  const artifact::TensorMap state = state_of(part);
  MatrixGradients full;
  sweep::Sweep sweep(*model, batches, {});
  std::vector<sweep::Observer*> observers{&full, &part};
  sweep.forward(observers, {.keep_boundaries = true});
  sweep.token_nll_with_gradient(1.0);
  sweep.backward(observers, 0);
  const auto check = [&](std::int64_t layer,
                         const std::string& name,
                         const at::Tensor& weight) {
    INFO(name << " of layer " << layer);
    const auto key = "lora.layers." + std::to_string(layer) + "." + name;
    const PairGradient found = part.gradient(layer, name);
    CHECK(weight.norm().item<double>() > 0.0);
    CHECK(
        close(found.left, at::mm(weight, state.at(key + ".right").t()) * 1.5));
    CHECK(
        close(found.right, at::mm(state.at(key + ".left").t(), weight) * 1.5));
  };
  for (const std::int64_t layer : {0, 1, 2}) {
    const auto& of = full.of_layer.at(layer);
    check(layer, "q_proj", of[0]);
    check(layer, "k_proj", of[1]);
    check(layer, "v_proj", of[2]);
    check(layer, "o_proj", of[3]);
  }
  // Gate and up of an MLP each have a pair of their own.
  const auto& dense = full.of_layer.at(0);
  check(0, "dense_gate", dense[4].narrow(0, 0, 12));
  check(0, "dense_up", dense[4].narrow(0, 12, 12));
  check(0, "dense_down", dense[5]);
}

TEST_CASE_METHOD(
    LoraFixture, "a resident layer gets the same sum each time it is asked") {
  LowRank part = this->part();
  step(part, 0, 0);
  step(part, 1, 0);
  for (const std::int64_t layer : {0, 1, 2}) {
    const auto again = model->acquire(layer, -1);
    const auto fresh = open_model(folder.path());
    fresh->set_patch([&](std::int64_t l, model::LayerWeights& weights) {
      part.patch(l, weights);
    });
    const auto once = fresh->acquire(layer, -1);
    const auto base = model->reader().read_layer(layer, at::kFloat);
    CHECK(again->attention.q_proj.equal(once->attention.q_proj));
    CHECK_FALSE(again->attention.q_proj.equal(base.attention.q_proj));
    if (layer == 0) {
      CHECK(again->dense.gate_up.equal(once->dense.gate_up));
      CHECK(again->dense.down.equal(once->dense.down));
      continue;
    }
    CHECK(again->experts.gate_up.equal(once->experts.gate_up));
    CHECK(again->experts.down.equal(once->experts.down));
    CHECK_FALSE(again->experts.down.equal(base.experts.down));
  }
}

TEST_CASE_METHOD(LoraFixture, "the state of pairs comes back bit for bit") {
  LowRank part = this->part();
  LowRank other = this->part();
  step(part, 0);
  other.load_state(state_of(part));
  step(part, 1);
  step(other, 1);
  const artifact::TensorMap a = state_of(part), b = state_of(other);
  // Four matrices of attention in each layer, three of the dense MLP, two kinds
  // of experts' in two layers, each with two sides and three tensors of each
  // side's optimizer.
  REQUIRE(a.size() == (4 * 3 + 3 + 2 * 2) * 8);
  for (const auto& [name, tensor] : a) CHECK(tensor.equal(b.at(name)));
  artifact::TensorMap broken = state_of(part);
  broken.erase("lora.layers.1.q_proj.left.age");
  CHECK_THROWS_WITH(other.load_state(broken), Contains("q_proj.left.age"));
}

TEST_CASE_METHOD(LoraFixture, "experts without tokens are left alone") {
  LowRank part = this->part({.experts = true});
  const artifact::TensorMap before = state_of(part);
  // One token in all: at most two experts of each layer are chosen.
  batches = sweep::micro_batches(sequences(1, 2), 24, kVocab);
  step(part, 0);
  const artifact::TensorMap after = state_of(part);
  int chosen = 0;
  for (std::int64_t e = 0; e < 4; ++e) {
    const auto ages = after.at("lora.layers.2.expert_down.right.age");
    const bool trained = ages[e * kRank].item<int>() == 1;
    chosen += trained ? 1 : 0;
    const char* key = "lora.layers.2.expert_down.right";
    const auto rows = [&](const artifact::TensorMap& state) {
      return state.at(key).narrow(0, e * kRank, kRank);
    };
    CHECK(rows(before).equal(rows(after)) == !trained);
  }
  CHECK(chosen > 0);
  CHECK(chosen < 4);
}

TEST_CASE_METHOD(LoraFixture, "merging gives the bits that tuning computed") {
  LowRank part = this->part();
  step(part, 0, 0);
  step(part, 1, 0);
  artifact::TensorMap adapter;
  part.save_adapter(adapter);
  const LowRankDelta delta(adapter, model->config());
  int changed = 0;
  for (const model::WeightId& id : model::model_weights(model->config())) {
    if (!delta.changes(id)) continue;
    ++changed;
    INFO(model::weight_name(model->config(), id));
    model::LayerWeights tuned =
        model->reader().read_layer(id.layer, at::kFloat);
    model::LayerWeights patched =
        model->reader().read_layer(id.layer, at::kFloat);
    part.patch(id.layer, tuned);
    delta.patch(id.layer, patched);
    CHECK(packed_view(tuned, id).equal(packed_view(patched, id)));
    const at::Tensor base = model->reader().read(id).to(at::kFloat);
    const at::Tensor merged = delta.merge(id, base);
    CHECK(merged.sizes() == base.sizes());
    CHECK_FALSE(merged.equal(base));
    CHECK(merged.equal(
        model::is_down_role(id.role) ? packed_view(tuned, id).t()
                                     : packed_view(tuned, id)));
  }
  // 12 of attention, 3 dense, three of each of 7 experts that have a width,
  // unless no token chose one.
  CHECK(changed >= 12 + 3 + 3 * 4);
  CHECK_FALSE(delta.changes({Role::kExpertGate, 1, 1}));
  CHECK_FALSE(delta.changes({Role::kFinalNorm}));

  adapter.erase("lora.layers.1.expert_down.right");
  CHECK_THROWS_WITH(
      LowRankDelta(adapter, model->config()), Contains("expert_down.right"));
}

TEST_CASE("a sum's bits don't depend on how much is summed at a time") {
  // Wide enough that products are cut into blocks, odd enough for their ends.
  const LowRankTarget target{0, Role::kExpertGate, {0, 2 * 77, 2 * 210}, 515};
  LowRankPairs pairs = LowRankPairs::start(target, 16, 3);
  pairs.left.uniform_(-1.0, 1.0);
  model::LayerWeights weights;
  weights.experts.offsets = {0, 77, 210};
  weights.experts.gate_up = at::rand({420, 515});
  weights.experts.down = at::rand({210, 515});
  const model::LayerWeights base = weights;
  add_pairs(pairs, 2.0F, weights);
  for (const auto& [e, first, count] :
       {std::tuple{0, 0, 77}, std::tuple{1, 154, 133}}) {
    for (const bool up : {false, true}) {
      const std::int64_t row = first + (up ? count : 0);
      const model::WeightId id{up ? Role::kExpertUp : Role::kExpertGate, 0, e};
      const at::Tensor alone = base.experts.gate_up.narrow(0, row, count);
      CHECK(with_pair(pairs, 2.0F, id, alone)
                .equal(weights.experts.gate_up.narrow(0, row, count)));
    }
  }
}

TEST_CASE_METHOD(LoraFixture, "a kind that the model lacks is refused") {
  CHECK_THROWS_WITH(
      part({.experts = true, .shared = true}),
      Contains("lora_targets") && Contains("shared"));
}
