// SPDX-License-Identifier: Apache-2.0
// heapr: (sum_t (p_t h_tk)^2 / n) (sum_t (w_k . g_t)^2 / n) over the expert's n
// tokens, p the mixing weight, g_t the gradient of the weighted output p_t y_t.
// The second factor is w_k^T (sum_t g_t g_t^T / n) w_k: the form with the H x H
// covariance gives the same number, and dL/dh_tk / p_t = w_k . g_t spares it.
// Source: HEAPr, 2025, its expert-wise importance with the output covariance.
#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

class Heapr : public SumObserver {
 public:
  explicit Heapr(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kBackward) {}

  bool wants_expert_gradients() const override { return true; }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    const at::Tensor p = view.weight.to(at::kFloat);
    // A mixing weight of 0 hides g: such a token counts for nothing.
    const at::Tensor seen = p.gt(0);
    const at::Tensor inverse = at::where(seen, p.reciprocal(), 0.0);
    activations_.add(
        view.expert, at::mv(view.h.to(at::kFloat).square().t(), p.square()));
    gradients_.add(
        view.expert,
        view.dh.to(at::kFloat).mul(inverse.unsqueeze(1)).square().sum(0));
    tokens_.add(view.expert, seen.sum());
  }

 private:
  LayerSums& activations_ = keep("activations");
  LayerSums& gradients_ = keep("gradients");
  LayerSums& tokens_ = keep("tokens", {.unit = Unit::kExpert});
};

at::Tensor energy(const Sums& sums, const ExpertWidths& widths) {
  const at::Tensor tokens =
      per_neuron(values_of(sums, "tokens").clamp_min(1), widths);
  return values_of(sums, "activations")
      .mul(values_of(sums, "gradients"))
      .div(tokens.square())
      .to(at::kFloat);
}

}  // namespace

ScoreMethod heapr_score() {
  return {
      .name = "heapr",
      .unit = Unit::kNeuron,
      .needs_backward = true,
      .neuron_sums = 2,
      .help =
          "mean square of the weighted activation times the output "
          "weights' norm in the gradients' covariance",
      .measured_in = "nats, twice the expected loss a token of its own",
      .make = make_observer<Heapr>,
      .score = energy};
}

}  // namespace fettle::analyze
