// SPDX-License-Identifier: Apache-2.0
// Scores that look at no token: magnitude, and random to compare with.
#include <vector>

#include "analyze/layer_sums.h"
#include "analyze/score_method.h"
#include "core/rng.h"

namespace fettle::analyze {
namespace {

// ||gate_k|| ||up_k|| ||w_k||
class Magnitude : public ScoreObserver {
 public:
  explicit Magnitude(const ScoreContext& context)
      : scores_(context.config.layers.size()) {}

  void begin_layer(
      sweep::Pass, std::int64_t layer, model::LayerWeights& weights) override {
    if (scores_[layer].defined()) return;
    const at::NoGradGuard no_grad;
    const model::ExpertBank& bank = weights.experts;
    if (!bank.down.defined()) {
      scores_[layer] = at::zeros({0}, at::kFloat);
      return;
    }
    const at::Tensor inputs = bank.gate_up.to(at::kFloat).norm(2, 1).cpu();
    scores_[layer] = bank.down.to(at::kFloat).norm(2, 1).cpu();
    for (std::int64_t e = 0; e < bank.size(); ++e) {
      const std::int64_t begin = bank.offsets[e];
      const std::int64_t width = bank.width(e);
      scores_[layer]
          .narrow(0, begin, width)
          .mul_(inputs.narrow(0, 2 * begin, width))
          .mul_(inputs.narrow(0, 2 * begin + width, width));
    }
  }

  at::Tensor score(std::int64_t layer) const override { return scores_[layer]; }

 private:
  std::vector<at::Tensor> scores_;
};

// Uniform in [0, 1), a stream of its own for each layer.
class Random : public ScoreObserver {
 public:
  explicit Random(const ScoreContext& context) : context_(context) {}

  at::Tensor score(std::int64_t layer) const override {
    const auto& widths = context_.config.layers[layer].expert_widths;
    at::Tensor scores =
        at::empty({neuron_offsets(widths).back()}, at::dtype(at::kFloat));
    Rng rng(context_.seed, static_cast<std::uint64_t>(layer));
    float* values = scores.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < scores.numel(); ++i) {
      values[i] = static_cast<float>(rng.uniform());
    }
    return scores;
  }

 private:
  ScoreContext context_;
};

}  // namespace

std::unique_ptr<ScoreObserver> make_magnitude(const ScoreContext& context) {
  return std::make_unique<Magnitude>(context);
}

std::unique_ptr<ScoreObserver> make_random(const ScoreContext& context) {
  return std::make_unique<Random>(context);
}

}  // namespace fettle::analyze
