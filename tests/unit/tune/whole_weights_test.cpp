// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/whole_weights.h"

#include <catch2/catch.hpp>

#include "full_gradients.h"
#include "sweep/micro_batches.h"
#include "tiny_model.h"
#include "tune/whole/weight_delta.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;

namespace {

const Probe kNoProbe = [](sweep::Observer&, const ProbeRequest&) {};

struct WeightsFixture {
  TemporaryFolder folder;
  std::unique_ptr<model::CausalLm> model;
  SilentReporter reporter;
  std::vector<model::TokenBatch> batches =
      sweep::micro_batches(sequences(5, 12), 24, kVocab);

  WeightsFixture() {
    write_tiny_model(folder.path());
    model = open_model(folder.path());
  }

  WholeWeights part(const WeightIds& ids, std::int64_t frozen_steps = 0) {
    return WholeWeights(
        model->reader(),
        at::kCPU,
        {.name = "test",
         .weights = ids,
         .frozen_steps = frozen_steps,
         .schedule = {0.1, 0, 10, 0.0}});
  }
  void prepare(WholeWeights& part, std::int64_t step) {
    part.prepare({step, kNoProbe, kNoProbe, reporter});
  }
};

using model::Role;

}  // namespace

TEST_CASE_METHOD(
    WeightsFixture, "a router's gradient is autograd's, once trained") {
  WholeWeights part = this->part(router_weights(model->config()), 2);
  FullGradients full;
  prepare(part, 1);
  CHECK_FALSE(part.trains(1));
  run_backward(*model, batches, {&part, &full});
  CHECK(part.gradient_norm_squared(1) == 0.0);
  CHECK(part.learning_rate(1) == 0.0);
  artifact::TensorMap untrained;
  part.update(1, {1, 1.0});
  part.save_adapter(untrained);
  CHECK(untrained.empty());

  prepare(part, 2);
  CHECK(part.trains(1));
  CHECK_FALSE(part.trains(0));
  CHECK(part.learning_rate(2) == 0.1);
  run_backward(*model, batches, {&part, &full});
  for (const std::int64_t layer : {1, 2}) {
    const double expected = full.router[layer].square().sum().item<double>();
    REQUIRE(expected > 0.0);
    CHECK(part.gradient_norm_squared(layer) == Approx(expected).epsilon(1e-4));
  }

  // The first update moves each weight by the rate against its gradient.
  model::LayerWeights weights = model->reader().read_layer(1, at::kFloat);
  const at::Tensor before = weights.router.clone();
  part.update(1, {2, 1.0});
  part.patch(1, weights);
  const at::Tensor clear = full.router[1].abs() > 1e-4;
  CHECK(at::allclose(
      (weights.router - before).masked_select(clear),
      full.router[1].sign().mul(-0.1).masked_select(clear),
      1e-3));
}

TEST_CASE_METHOD(WeightsFixture, "an expert's gradient is autograd's") {
  // Expert 3 of layer 1 has the bank's rows 10 to 15 (widths 6, 0, 4, 6).
  for (const Role role :
       {Role::kExpertGate, Role::kExpertUp, Role::kExpertDown}) {
    WholeWeights part = this->part({{role, 1, 3}});
    FullGradients full;
    prepare(part, 0);
    CHECK(part.trainable_weights(kLayers) == 6 * kHidden);
    run_backward(*model, batches, {&part, &full});
    const at::Tensor expected =
        role == Role::kExpertDown
            ? full.down[1].narrow(0, 10, 6)
            : full.gate_up[1].narrow(0, role == Role::kExpertGate ? 20 : 26, 6);
    CHECK(
        part.gradient_norm_squared(1) ==
        Approx(expected.square().sum().item<double>()).epsilon(1e-4));
  }
}

TEST_CASE_METHOD(
    WeightsFixture, "the gradient of what stands beside the experts") {
  // A change of any weight along its gradient changes the loss by the
  // gradient's square.
  const auto loss = [&](const WholeWeights* part) {
    const auto fresh = open_model(folder.path());
    fresh->set_patch([&](std::int64_t layer, model::LayerWeights& weights) {
      if (part != nullptr) part->patch(layer, weights);
    });
    sweep::Sweep sweep(*fresh, batches, {});
    sweep.forward({}, {});
    double total = 0.0;
    for (const auto& nll : sweep.token_nll()) {
      total += nll.sum(at::kDouble).item<double>();
    }
    return total;
  };
  const double before = loss(nullptr);
  for (const Role role :
       {Role::kQProj, Role::kOProj, Role::kInputNorm, Role::kQNorm}) {
    INFO(model::role_name(role));
    const auto fresh = open_model(folder.path());
    WholeWeights part(
        model->reader(),
        at::kCPU,
        {.name = "test",
         .weights = {{role, 1}},
         .schedule = {1e-4, 0, 10, 0.0},
         .adamw = {.beta1 = 0.0, .beta2 = 0.0}});
    prepare(part, 0);
    run_backward(*fresh, batches, {&part});
    artifact::TensorMap state;
    part.save_state(state);
    const double norm = part.gradient_norm_squared(1);
    CHECK(norm > 0.0);
    // With no memory AdamW steps by the sign: the loss falls by the rate times
    // the gradient's 1-norm, which is between the 2-norm and sqrt(n) times it.
    part.update(1, {0, 1.0});
    const double fall = before - loss(&part);
    const auto count = static_cast<double>(part.trainable_weights(kLayers));
    CHECK(fall > 0.9e-4 * std::sqrt(norm));
    CHECK(fall < 1.1e-4 * std::sqrt(norm * count));
  }
}

TEST_CASE_METHOD(
    WeightsFixture, "the state of whole weights comes back bit for bit") {
  const WeightIds ids{
      {Role::kRouter, 1}, {Role::kExpertDown, 1, 2}, {Role::kInputNorm, 2}};
  WholeWeights part = this->part(ids);
  WholeWeights other = this->part(ids);
  const auto step = [&](WholeWeights& which, std::int64_t s) {
    prepare(which, s);
    run_backward(*model, batches, {&which});
    for (const std::int64_t l : {0, 1, 2}) which.update(l, {s, 0.5});
  };
  step(part, 0);
  artifact::TensorMap saved;
  part.save_state(saved);
  for (auto& [name, tensor] : saved) tensor = tensor.clone();
  other.load_state(saved);
  step(part, 1);
  step(other, 1);
  artifact::TensorMap a, b;
  part.save_state(a);
  other.save_state(b);
  REQUIRE(a.size() == 12);
  for (const auto& [name, tensor] : a) CHECK(tensor.equal(b.at(name)));

  // The adapter puts the same values into a layer as the part does.
  artifact::TensorMap adapter;
  part.save_adapter(adapter);
  REQUIRE(adapter.size() == 3);
  const WeightDelta delta(adapter, "test", model->config());
  for (const model::WeightId& id : ids) {
    model::LayerWeights tuned =
        model->reader().read_layer(id.layer, at::kFloat);
    model::LayerWeights merged =
        model->reader().read_layer(id.layer, at::kFloat);
    part.patch(id.layer, tuned);
    delta.patch(id.layer, merged);
    CHECK(packed_view(tuned, id).equal(packed_view(merged, id)));
    CHECK(delta.changes(id));
    const at::Tensor base = model->reader().read(id).to(at::kFloat);
    const at::Tensor value = delta.merge(id, base);
    CHECK(value.sizes() == base.sizes());
    CHECK_FALSE(value.equal(base));
  }
}
