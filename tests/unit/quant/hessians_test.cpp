// SPDX-License-Identifier: Apache-2.0
#include "quant/hessians.h"

#include <catch2/catch.hpp>

#include "calibration.h"
#include "layer_reference.h"
#include "quant/scheme.h"
#include "sweep/layer_stream.h"

namespace fettle::quant {
namespace {

using namespace testing;
using model::Role;
using model::WeightId;

// Moments are sums in fp32 of activations in fp32.
bool near(const at::Tensor& found, const at::Tensor& expected) {
  const double largest = expected.abs().max().item<double>();
  return at::allclose(found.to(at::kDouble), expected, 1e-4, 1e-5 * largest);
}

// Two layers' taps, all tokens passed to each.
class Tapped {
 public:
  Tapped(TinyCalibration& calibration, const HessianOptions& options)
      : calibration_(calibration),
        options_(options),
        stream_(calibration.model(), calibration.batches(), {}) {}

  HessianTap layer(std::int64_t l, const HessianTap::Range& range) {
    const auto weights = calibration_.model().acquire(l, -1);
    HessianTap tap(options_, *weights, range);
    stream_.look({calibration_.config(), l, *weights, &tap});
    return tap;
  }
  void advance(std::int64_t l) {
    const auto weights = calibration_.model().acquire(l, -1);
    stream_.advance({calibration_.config(), l, *weights});
  }

 private:
  TinyCalibration& calibration_;
  const HessianOptions& options_;
  sweep::LayerStream stream_;
};

at::Tensor matrix(std::initializer_list<std::initializer_list<float>> rows) {
  std::vector<at::Tensor> tensors;
  for (const auto& row : rows) {
    tensors.push_back(at::tensor(std::vector<float>(row)));
  }
  return at::stack(tensors);
}

TEST_CASE("A token counts by the square of its mixing weight, or as one") {
  HessianOptions options;
  options.gate_weighted = GENERATE(true, false);
  const model::LayerWeights weights;
  HessianTap tap(options, weights, {1, 2, false});
  const at::Tensor x = matrix({{1, 2}, {0, 4}});
  const at::Tensor h = matrix({{3}, {1}});
  for (const std::int64_t expert : {0, 1, 1}) {
    tap.on_expert(
        0, {expert, at::arange(2), x, {}, h, {}, at::tensor({0.5f, 0.25f})});
  }
  // Twice what one view gives: of expert 1, and not of expert 0.
  const bool gated = options.gate_weighted;
  REQUIRE(
      tap.of(Role::kExpertGate, 1)
          .sum.equal(
              gated ? matrix({{0.5, 1}, {1, 4}}) : matrix({{2, 4}, {4, 40}})));
  REQUIRE(tap.of(Role::kExpertDown, 1)
              .sum.equal(gated ? matrix({{4.625}}) : matrix({{20}})));
  REQUIRE(tap.of(Role::kExpertUp, 1).tokens == 4);
  REQUIRE(tap.of(Role::kExpertGate, 0).tokens == 0);
  REQUIRE_FALSE(tap.of(Role::kExpertGate, 0).sum.defined());
}

TEST_CASE("Moments are of what each matrix of a layer takes in") {
  TinyModelOptions model = sample_options(
      GENERATE("qwen3_moe", "qwen2_moe", "mixtral", "deepseek_v2"));
  // Queries in two steps, and a dense layer, as deepseek_v2 has one too.
  if (model.family == "deepseek_v2") model.changes["q_lora_rank"] = 3;
  if (model.family == "qwen3_moe") model.changes["mlp_only_layers"] = {0};
  const HessianOptions options{
      GENERATE(Calibration::kRouted, Calibration::kAll), GENERATE(true, false)};
  TinyCalibration calibration(model);
  const auto expected = compute_layers(calibration.reader(), calibration.ids());
  Tapped tapped(calibration, options);
  for (std::int64_t l = 0; l < 2; ++l) {
    const HessianTap tap = tapped.layer(l, {0, 4, true});
    for (const WeightId& id : model::layer_weights(calibration.config(), l)) {
      if (!part_of(id.role)) continue;
      CAPTURE(l, model::role_name(id.role), id.expert);
      const Hessian moments = expected[l].moments(id, options);
      const Hessian& found = tap.of(id.role, id.expert);
      REQUIRE(found.tokens == moments.tokens);
      REQUIRE(found.sum.defined() == (moments.tokens > 0));
      if (moments.tokens > 0) REQUIRE(near(found.sum, moments.sum));
    }
    if (calibration.config().layers[l].sparse) {
      // All experts' common input, each token once and unweighted.
      const at::Tensor& x = expected[l].inputs.at({Role::kExpertGate, 0});
      REQUIRE(tap.of_layer().tokens == 48);
      REQUIRE(near(tap.of_layer().sum, at::mm(x.t(), x)));
    } else {
      REQUIRE(tap.of_layer().tokens == 0);
    }
    tapped.advance(l);
  }
}

TEST_CASE("Statistics of all tokens need no token to choose the expert") {
  // Seven of eight experts are never chosen.
  TinyModelOptions model = sample_options("mixtral");
  model.changes.update({{"num_local_experts", 8}, {"num_experts_per_tok", 1}});
  model.edit = [](const WeightId& id, at::Tensor tensor) {
    if (id.role == Role::kRouter) tensor.zero_().select(0, 5).fill_(0.1);
    if (id.role == Role::kPostAttentionNorm) tensor.abs_();
    if (id.role == Role::kEmbedTokens) tensor.abs_().add_(3);
    return tensor;
  };
  TinyCalibration calibration(model);
  const auto expected =
      compute_layers(calibration.reader(), calibration.ids()).front();
  for (const auto kind : {Calibration::kRouted, Calibration::kAll}) {
    const HessianOptions options{kind, true};
    const HessianTap tap = Tapped(calibration, options).layer(0, {0, 8, true});
    for (std::int64_t e = 0; e < 8; ++e) {
      CAPTURE(e, kind == Calibration::kAll);
      const bool sees = kind == Calibration::kAll || e == 5;
      for (const Role role : {Role::kExpertGate, Role::kExpertDown}) {
        const Hessian& found = tap.of(role, e);
        REQUIRE(found.tokens == (sees ? 48 : 0));
        REQUIRE(found.sum.defined() == sees);
        if (!sees) continue;
        REQUIRE(near(found.sum, expected.moments({role, 0, e}, options).sum));
      }
    }
  }
}

TEST_CASE("A tap holds what was asked for, of the bytes that are told") {
  TinyModelOptions model = sample_options("qwen2_moe");
  model.widths = {{6, 0, 4, 5}, {6, 6, 6, 6}};
  const HessianOptions options{
      GENERATE(Calibration::kRouted, Calibration::kAll), true};
  TinyCalibration calibration(model);
  const auto& config = calibration.config();
  Tapped tapped(calibration, options);
  const HessianTap whole = tapped.layer(0, {0, 4, true});
  const HessianTap some = tapped.layer(0, {2, 4, false});
  std::int64_t others = 0;
  for (const Role role :
       {Role::kQProj, Role::kOProj, Role::kSharedGate, Role::kSharedDown}) {
    others += static_cast<std::int64_t>(whole.of(role).sum.nbytes());
    REQUIRE_FALSE(some.of(role).sum.defined());
  }
  REQUIRE(others == other_hessian_bytes(config, 0));
  REQUIRE_FALSE(some.of_layer().sum.defined());
  for (const std::int64_t e : {0, 2, 3}) {
    std::int64_t bytes = 0;
    for (const Role role : {Role::kExpertGate, Role::kExpertDown}) {
      const at::Tensor& sum = whole.of(role, e).sum;
      bytes += static_cast<std::int64_t>(sum.nbytes());
      REQUIRE(some.of(role, e).sum.defined() == (e >= 2));
      if (e >= 2) REQUIRE(some.of(role, e).sum.equal(sum));
    }
    REQUIRE(bytes == expert_hessian_bytes(config, 0, e));
  }
  // An expert without a neuron has no matrix to be led.
  REQUIRE(whole.of(Role::kExpertGate, 1).tokens == 0);
  REQUIRE_FALSE(whole.of(Role::kExpertDown, 1).sum.defined());
}

}  // namespace
}  // namespace fettle::quant
