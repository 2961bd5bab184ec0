// SPDX-License-Identifier: Apache-2.0
// weight_fisher: sum over tokens of the squared gradients of the neuron's
// weights (3H, or 2H without a gate), each token by itself. A token's gradient
// of a weight vector is a number times a vector (dgate x, dup x, h dy), so that
// its squared norm is the product of two squares and no weight gradient is
// formed:
//   sum_t |x_t|^2 (dgate_tk^2 + dup_tk^2) + h_tk^2 |dy_t|^2
// dy is the gradient of the unweighted output. Source: the empirical Fisher of
// Fisher-MoE, taken per token.
#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

at::Tensor row_squares(const at::Tensor& rows) {
  return rows.to(at::kFloat).square().sum(1);
}

class WeightFisher : public SumObserver {
 public:
  explicit WeightFisher(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kBackward) {}

  bool wants_expert_gradients() const override { return true; }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    const at::Tensor inputs =
        at::mv(view.d_gate_up.to(at::kFloat).square().t(), row_squares(view.x));
    const at::Tensor outputs =
        at::mv(view.h.to(at::kFloat).square().t(), row_squares(view.dy));
    sum_.add(view.expert, inputs.view({view.inputs(), -1}).sum(0) + outputs);
  }

 private:
  LayerSums& sum_ = keep("sum");
};

}  // namespace

ScoreMethod weight_fisher_score() {
  return {
      .name = "weight_fisher",
      .unit = Unit::kNeuron,
      .needs_backward = true,
      .neuron_sums = 1,
      .help = "Fisher information of the neuron's weights, token by token",
      .measured_in = "squared nats per unit of weight, summed over tokens",
      .make = make_observer<WeightFisher>,
      .score = plain_sum};
}

}  // namespace fettle::analyze
