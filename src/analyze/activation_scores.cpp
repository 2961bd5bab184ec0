// SPDX-License-Identifier: Apache-2.0
// Scores from activations weighted by the router and the norms of the output
// weights: wanda and camera.
#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

// [n, I]: squares of the activations times mixing weights.
at::Tensor weighted_squares(const model::ExpertView& view) {
  return view.h.to(at::kFloat)
      .mul(view.weight.to(at::kFloat).unsqueeze(1))
      .square_();
}

// Keeps beside what is summed the squared norm of each neuron's output weights.
class ActivationScore : public SumObserver {
 public:
  explicit ActivationScore(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kForward) {}

  bool wants_experts() const override { return true; }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::begin_layer(pass, layer, weights);
    const model::ExpertBank& bank = weights.experts;
    if (outputs_.is_set(layer) || bank.size() == 0) return;
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> squares;
    for (std::int64_t e = 0; e < bank.size(); ++e) {
      squares.push_back(bank.expert(e).down.to(at::kFloat).square().sum(1));
    }
    outputs_.set(layer, at::cat(squares));
  }

 private:
  LayerSums& outputs_ = keep("outputs", {.reduction = Reduction::kSame});
};

// wanda: ||w_k|| ||h_k||, w_k the neuron's column of down_proj, h_k its
// activations over all tokens weighted by the router.
// Source: Sun et al., "A simple and effective pruning approach for large
// language models", ICLR 2024, applied to whole neurons.
class Wanda : public ActivationScore {
 public:
  using ActivationScore::ActivationScore;

  void on_expert(std::int64_t, const model::ExpertView& view) override {
    const at::NoGradGuard no_grad;
    squares_.add(view.expert, weighted_squares(view).sum(0));
  }

 private:
  LayerSums& squares_ = keep("squares");
};

at::Tensor wanda(const Sums& sums, const ExpertWidths&) {
  return values_of(sums, "squares")
      .mul(values_of(sums, "outputs"))
      .sqrt()
      .to(at::kFloat);
}

// camera: ||w_k||^2 ((1 - a) ||h_k||_2^2 + a ||h_k||_inf^2), a = 0.9, h_k as
// above. Source: CAMERA-P, 2025, the energy of a micro-expert.
class Camera : public ActivationScore {
 public:
  using ActivationScore::ActivationScore;

  void on_expert(std::int64_t, const model::ExpertView& view) override {
    const at::NoGradGuard no_grad;
    const at::Tensor squares = weighted_squares(view);
    squares_.add(view.expert, squares.sum(0));
    largest_.add(view.expert, squares.amax(0));
  }

 private:
  LayerSums& squares_ = keep("squares");
  LayerSums& largest_ = keep("largest", {.reduction = Reduction::kMax});
};

at::Tensor camera(const Sums& sums, const ExpertWidths&) {
  constexpr double kAlpha = 0.9;
  return values_of(sums, "squares")
      .mul(1 - kAlpha)
      .add(values_of(sums, "largest"), kAlpha)
      .mul(values_of(sums, "outputs"))
      .to(at::kFloat);
}

}  // namespace

ScoreMethod wanda_score() {
  return {
      .name = "wanda",
      .unit = Unit::kNeuron,
      .neuron_sums = 2,
      .help = "norm of the output weights times norm of the activation",
      .measured_in = "a product of norms, without a unit",
      .make = make_observer<Wanda>,
      .score = wanda};
}

ScoreMethod camera_score() {
  return {
      .name = "camera",
      .unit = Unit::kNeuron,
      .neuron_sums = 3,
      .help =
          "squared norm of the output weights times a blend of the "
          "activation's sum of squares and largest square",
      .measured_in = "a product of squared norms, without a unit",
      .make = make_observer<Camera>,
      .score = camera};
}

}  // namespace fettle::analyze
