// SPDX-License-Identifier: Apache-2.0
// wanda: ||w_k|| ||h_k||, w_k the neuron's column of down_proj, h_k its
// activations over all tokens weighted by the router.
// Source: Sun et al., "A simple and effective pruning approach for large
// language models", ICLR 2024, applied to whole neurons.
#include <vector>

#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

class Wanda : public SumObserver {
 public:
  explicit Wanda(const ScoreContext& context)
      : SumObserver(context, {Unit::kNeuron, sweep::Pass::kForward}),
        norms_(context.config.layers.size()) {}

  bool wants_experts() const override { return true; }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::begin_layer(pass, layer, weights);
    if (norms_[layer].defined() || !weights.experts.down.defined()) return;
    const at::NoGradGuard no_grad;
    norms_[layer] = weights.experts.down.to(at::kFloat).norm(2, 1).cpu();
  }

  void on_expert(std::int64_t, const model::ExpertView& view) override {
    const at::NoGradGuard no_grad;
    const at::Tensor squares = view.h.to(at::kFloat).square();
    const at::Tensor mixing = view.weight.to(at::kFloat).square();
    sums_.add(view.expert, at::mv(squares.t(), mixing));
  }

  at::Tensor score(std::int64_t layer) const override {
    const at::Tensor sum = sums_.total(layer);
    if (!norms_[layer].defined()) return sum.to(at::kFloat);
    return sum.sqrt().mul(norms_[layer]).to(at::kFloat);
  }

 private:
  std::vector<at::Tensor> norms_;  // [L] of [S]
};

}  // namespace

std::unique_ptr<ScoreObserver> make_wanda(const ScoreContext& context) {
  return std::make_unique<Wanda>(context);
}

}  // namespace fettle::analyze
