// SPDX-License-Identifier: Apache-2.0
// Fisher information of factors that are 1: on a neuron's activation, or on a
// whole expert's weighted output. L is the summed negative log-likelihood, and
// the square is taken per token.
#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

// [n, I]: the derivative of L with respect to a factor on each neuron.
at::Tensor mask_gradient(const model::ExpertGradView& view) {
  return view.h.to(at::kFloat).mul(view.dh.to(at::kFloat));
}

// mask_fisher: sum over tokens of (h dL/dh)^2.
class MaskFisher : public SumObserver {
 public:
  explicit MaskFisher(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kBackward) {}

  bool wants_expert_gradients() const override { return true; }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    sum_.add(view.expert, mask_gradient(view).square_().sum(0));
  }

 private:
  LayerSums& sum_ = keep("sum");
};

// expert_fisher: sum over tokens of (p y . dL/d(p y))^2, p the mixing weight.
// The output is the sum over neurons of h w and, where a trimmed model has one,
// the expert's constant. An expert without neurons gets 0.
class ExpertFisher : public SumObserver {
 public:
  explicit ExpertFisher(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kBackward) {}

  bool wants_expert_gradients() const override { return true; }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::begin_layer(pass, layer, weights);
    constant_ = weights.experts.constant;
  }

  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::end_layer(pass, layer, weights);
    constant_.reset();
  }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    at::Tensor product = mask_gradient(view).sum(1);
    if (constant_.defined()) {
      const at::Tensor constant = constant_[view.expert].to(at::kFloat);
      product = product + at::mv(view.dy.to(at::kFloat), constant);
    }
    sum_.add(view.expert, product.square().sum());
  }

 private:
  LayerSums& sum_ = keep("sum", {.unit = Unit::kExpert});
  at::Tensor constant_;  // [E, H] of the layer in use, or undefined
};

}  // namespace

ScoreMethod mask_fisher_score() {
  return {
      .name = "mask_fisher",
      .unit = Unit::kNeuron,
      .needs_backward = true,
      .neuron_sums = 1,
      .help = "Fisher information of a 0/1 mask on the neuron",
      .measured_in =
          "nats summed over tokens; half is the loss that is expected",
      .nats_per_score = 0.5,
      .make = make_observer<MaskFisher>,
      .score = plain_sum};
}

ScoreMethod expert_fisher_score() {
  return {
      .name = "expert_fisher",
      .unit = Unit::kExpert,
      .needs_backward = true,
      .help = "Fisher information of a 0/1 mask on the expert's output",
      .measured_in =
          "nats summed over tokens; half is the loss that is expected",
      .make = make_observer<ExpertFisher>,
      .score = plain_sum};
}

}  // namespace fettle::analyze
