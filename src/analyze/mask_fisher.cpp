// SPDX-License-Identifier: Apache-2.0
// mask_fisher: sum over tokens of (h dL/dh)^2, L the summed negative
// log-likelihood. h dL/dh is the derivative of L with respect to a factor on
// the neuron's activation, taken at 1.
#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

class MaskFisher : public SumObserver {
 public:
  explicit MaskFisher(const ScoreContext& context)
      : SumObserver(context, {Unit::kNeuron, sweep::Pass::kBackward}) {}

  bool wants_expert_gradients() const override { return true; }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    const at::Tensor product =
        view.h.to(at::kFloat).mul(view.dh.to(at::kFloat));
    sums_.add(view.expert, product.square_().sum(0));
  }
};

}  // namespace

std::unique_ptr<ScoreObserver> make_mask_fisher(const ScoreContext& context) {
  return std::make_unique<MaskFisher>(context);
}

}  // namespace fettle::analyze
