// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/sparse_neurons.h"

#include <array>
#include <catch2/catch.hpp>

#include "full_gradients.h"
#include "sweep/micro_batches.h"
#include "tiny_model.h"
#include "tune/sparse/neuron_rows.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;

namespace {

at::Tensor chosen_at(std::vector<std::int64_t> values) {
  return at::tensor(values, at::kLong);
}

struct Fixture {
  TemporaryFolder folder;
  std::unique_ptr<model::CausalLm> model;

  Fixture() {
    write_tiny_model(folder.path());
    model = open_model(folder.path());
  }
  SparseNeurons part(SparseOptions options = {}) const {
    return {model->reader(), at::kCPU, options};
  }
};

// Makes the part's moments and values something to lose.
void update_with(SparseNeurons& part, Fixture& fixture, std::int64_t step) {
  const auto batches = sweep::micro_batches(sequences(4, 12), 30, kVocab);
  run_backward(*fixture.model, batches, {&part});
  for (const std::int64_t l : {0, 1, 2}) part.update(l, {step, 1.0});
}

}  // namespace

TEST_CASE_METHOD(Fixture, "chosen gradients are those of the full gradient") {
  SparseNeurons part = this->part();
  const at::Tensor chosen = chosen_at({0, 3, 7, 9, 15});
  part.set_active(1, chosen);
  part.set_active(2, chosen_at({2, 8, 14}));
  FullGradients full;
  // Three micro-batches, so that sums over them are seen.
  const auto batches = sweep::micro_batches(sequences(5, 12), 24, kVocab);
  REQUIRE(batches.size() == 3);
  run_backward(*model, batches, {&part, &full});
  for (const std::int64_t layer : {1, 2}) {
    const auto offsets = expert_offsets(model->config().layers[layer]);
    const BankRows rows = bank_rows(part.active(layer), offsets, 2);
    const at::Tensor expected = at::stack(
        {full.gate_up[layer].index_select(0, rows.inputs[0]),
         full.gate_up[layer].index_select(0, rows.inputs[1]),
         full.down[layer].index_select(0, rows.down)});
    CHECK(expected.abs().max().item<float>() > 0.0f);
    CHECK(at::allclose(part.gradient(layer), expected, 1e-4, 1e-6));
    CHECK(
        part.gradient_norm_squared(layer) ==
        Approx(expected.square().sum().item<double>()).epsilon(1e-4));
  }
  CHECK_FALSE(part.trains(0));
  CHECK(part.gradient_norm_squared(0) == 0.0);
  CHECK(part.trainable_weights(kLayers) == 8 * 3 * kHidden);
}

TEST_CASE_METHOD(
    Fixture, "patching puts updated values in, any number of times") {
  SparseNeurons part = this->part({.schedule = {0.1, 0, 10, 0.0}});
  part.set_active(1, chosen_at({0, 9}));
  model::LayerWeights before = model->reader().read_layer(1, at::kFloat);
  model::LayerWeights after = model->reader().read_layer(1, at::kFloat);
  part.patch(1, after);
  CHECK(after.experts.gate_up.equal(before.experts.gate_up));
  update_with(part, *this, 0);
  part.patch(1, after);
  const at::Tensor once = after.experts.gate_up.clone();
  part.patch(1, after);
  CHECK(after.experts.gate_up.equal(once));
  CHECK((once != before.experts.gate_up).any(1).sum().item<int>() == 4);
}

TEST_CASE_METHOD(
    Fixture, "a new choice keeps what survivors and leavers learned") {
  SparseNeurons part =
      this->part({.reselect_every = 1, .schedule = {0.1, 0, 10, 0.0}});
  part.set_active(1, chosen_at({0, 3, 9}));
  update_with(part, *this, 0);
  artifact::TensorMap old;
  part.save_state(old);
  const auto of = [](const artifact::TensorMap& map, const std::string& what) {
    return map.at("neurons.layers.1." + what);
  };
  part.set_active(1, chosen_at({3, 5}));  // 0 and 9 leave, 5 joins

  artifact::TensorMap now;
  part.save_state(now);
  CHECK(part.frozen(1).index.equal(chosen_at({0, 9})));
  const at::Tensor left = chosen_at({0, 2});
  CHECK(of(now, "frozen.values")
            .equal(of(old, "active.values").index_select(1, left)));
  for (const char* what : {"active.values", "active.first", "active.second"}) {
    CHECK(of(now, what).select(1, 0).equal(of(old, what).select(1, 1)));
  }
  CHECK(of(now, "active.age").equal(at::tensor({1, 0}, at::kInt)));
  CHECK(of(now, "active.first").select(1, 1).abs().max().item<float>() == 0.0f);
  CHECK(of(now, "active.values")
            .select(1, 1)
            .equal(read_rows(model->reader(), 1, chosen_at({5}))
                       .values.select(1, 0)));

  part.set_active(1, chosen_at({0}));  // 0 returns with what it had learned
  artifact::TensorMap last;
  part.save_state(last);
  CHECK(of(last, "active.values")
            .select(1, 0)
            .equal(of(old, "active.values").select(1, 0)));
  CHECK(part.frozen(1).index.equal(chosen_at({3, 5, 9})));

  model::LayerWeights weights = model->reader().read_layer(1, at::kFloat);
  part.patch(1, weights);
  const at::Tensor down = weights.experts.down;
  CHECK(down[9].equal(of(old, "active.values")[2][2]));
  CHECK(down[3].equal(of(old, "active.values")[2][1]));
}

TEST_CASE_METHOD(Fixture, "a saved state comes back bit for bit") {
  // Chosen anew, where experts may rest, and chosen once.
  const SparseOptions options = GENERATE(
      SparseOptions{.reselect_every = 1, .schedule = {0.1, 0, 10, 0.0}},
      SparseOptions{.rest_below = 0.5, .schedule = {0.1, 0, 10, 0.0}},
      SparseOptions{.schedule = {0.1, 0, 10, 0.0}});
  SparseNeurons part = this->part(options);
  part.set_active(1, chosen_at({0, 3, 9}));
  part.set_active(2, chosen_at({4}));
  update_with(part, *this, 0);
  if (options.reselect_every > 0) part.set_active(1, chosen_at({3, 5}));
  artifact::TensorMap saved;
  part.save_state(saved);
  for (auto& [name, tensor] : saved) tensor = tensor.clone();

  SparseNeurons other = this->part(options);
  other.load_state(saved);
  update_with(part, *this, 1);
  update_with(other, *this, 1);
  artifact::TensorMap a, b;
  part.save_state(a);
  other.save_state(b);
  REQUIRE(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    INFO(name);
    CHECK(tensor.equal(b.at(name)));
  }
}

TEST_CASE_METHOD(Fixture, "the choice follows the scores of the probe") {
  SparseNeurons part = this->part(
      {.frac = 0.25, .reselect_every = 2, .schedule = {0.1, 0, 8, 0.0}});
  int probes = 0;
  const Probe probe = [&](sweep::Observer& observer,
                          const ProbeRequest& request) {
    ++probes;
    const auto batches =
        sweep::micro_batches(sequences(request.sequences, 12), 12, kVocab);
    run_backward(*model, batches, {&observer});
  };
  SilentReporter reporter;
  part.prepare({0, probe, probe, reporter});
  // A quarter of 32 neurons.
  CHECK(part.active(1).size(0) + part.active(2).size(0) == 8);
  update_with(part, *this, 0);
  part.prepare({1, probe, probe, reporter});
  CHECK(probes == 1);
  part.prepare({2, probe, probe, reporter});
  CHECK(probes == 2);
  CHECK(part.active(1).size(0) + part.active(2).size(0) == 8);
}

TEST_CASE_METHOD(Fixture, "an expert that had little to do rests for a step") {
  SparseNeurons part =
      this->part({.rest_below = 0.5, .schedule = {0.1, 0, 10, 0.0}});
  // Neurons 1, 7 and 11 of layer 1 are of experts 0, 2 and 3.
  part.set_active(1, chosen_at({1, 7, 11}));
  model::LayerWeights before = model->reader().read_layer(1, at::kFloat);
  const at::Tensor none;
  // Masses 1.5, 0, 0.2, 0.3: the mean is 0.5, and half of it 0.25.
  const at::Tensor selected = at::tensor({0, 2, 0, 3}, at::kLong).view({2, 2});
  const at::Tensor weights = at::tensor({0.8F, 0.2F, 0.7F, 0.3F}).view({2, 2});
  const at::Tensor logits = at::zeros({2, 4});
  part.begin_layer(sweep::Pass::kForward, 1, before);
  part.on_routing(1, {none, logits, none, selected, weights});
  const auto batches = sweep::micro_batches(sequences(4, 12), 30, kVocab);
  run_backward(*model, batches, {&part});
  part.update(1, {0, 1.0});
  model::LayerWeights after = model->reader().read_layer(1, at::kFloat);
  part.patch(1, after);
  const at::Tensor moved =
      (after.experts.down - before.experts.down).abs().amax(1).gt(0.0);
  CHECK(moved[1].item<bool>());
  CHECK_FALSE(moved[7].item<bool>());
  CHECK(moved[11].item<bool>());
  CHECK(moved.sum().item<std::int64_t>() == 2);
}
