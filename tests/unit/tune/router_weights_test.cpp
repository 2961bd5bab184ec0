// SPDX-License-Identifier: Apache-2.0
#include "tune/router_weights.h"

#include <catch2/catch.hpp>

#include "full_gradients.h"
#include "sweep/micro_batches.h"
#include "tiny_model.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;

namespace {

const GradientProbe kNoProbe = [](sweep::Observer&, std::int64_t) {};

}  // namespace

TEST_CASE("a router's gradient is autograd's, once it is trained") {
  const TemporaryFolder folder;
  write_tiny_model(folder.path());
  const auto model = open_model(folder.path());
  RouterWeights part(model->reader(), at::kCPU, {2, {0.1, 0, 10, 0.0}, {}});
  FullGradients full;
  SilentReporter reporter;
  const auto batches = sweep::micro_batches(sequences(5, 12), 24, kVocab);

  part.prepare({1, kNoProbe, reporter});
  CHECK_FALSE(part.trains(1));
  run_backward(*model, batches, {&part, &full});
  CHECK(part.gradient_norm_squared(1) == 0.0);
  CHECK(part.learning_rate(1) == 0.0);
  artifact::TensorMap untrained;
  part.update(1, {1, 1.0});
  part.save_adapter(untrained);
  CHECK(untrained.empty());

  part.prepare({2, kNoProbe, reporter});
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

TEST_CASE("a router's state comes back bit for bit") {
  const TemporaryFolder folder;
  write_tiny_model(folder.path());
  const auto model = open_model(folder.path());
  const RouterWeightsOptions options{0, {0.1, 0, 10, 0.0}, {}};
  RouterWeights part(model->reader(), at::kCPU, options);
  RouterWeights other(model->reader(), at::kCPU, options);
  SilentReporter reporter;
  const auto batches = sweep::micro_batches(sequences(5, 12), 24, kVocab);
  const auto step = [&](RouterWeights& which, std::int64_t s) {
    which.prepare({s, kNoProbe, reporter});
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
  REQUIRE(a.size() == 8);
  for (const auto& [name, tensor] : a) CHECK(tensor.equal(b.at(name)));
}
