// SPDX-License-Identifier: Apache-2.0
// Scores that look at no token: magnitude, and random to compare with.
#include "analyze/sum_observer.h"
#include "core/rng.h"

namespace fettle::analyze {
namespace {

// ||gate_k|| ||up_k|| ||w_k||, without the first where there is no gate
class Magnitude : public SumObserver {
 public:
  explicit Magnitude(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kForward) {}

  void begin_layer(
      sweep::Pass, std::int64_t layer, model::LayerWeights& weights) override {
    const model::ExpertBank& bank = weights.experts;
    if (sum_.is_set(layer) || bank.size() == 0) return;
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> all;
    for (std::int64_t e = 0; e < bank.size(); ++e) {
      const model::Mlp expert = bank.expert(e);
      const at::Tensor inputs = expert.gate_up.to(at::kFloat)
                                    .norm(2, 1)
                                    .view({bank.inputs(), bank.width(e)});
      at::Tensor norms = expert.down.to(at::kFloat).norm(2, 1);
      for (std::int64_t p = 0; p < bank.inputs(); ++p) norms.mul_(inputs[p]);
      all.push_back(norms.cpu());
    }
    sum_.set(layer, at::cat(all));
  }

 private:
  LayerSums& sum_ = keep("sum", {.reduction = Reduction::kSame});
};

// Uniform in [0, 1), a stream of its own for each layer.
class Random : public SumObserver {
 public:
  explicit Random(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kForward) {
    for (std::size_t l = 0; l < context.config.layers.size(); ++l) {
      at::Tensor values = at::empty(
          {context.config.layers[l].total_width()}, at::dtype(at::kFloat));
      Rng rng(context.seed, static_cast<std::uint64_t>(l));
      float* data = values.mutable_data_ptr<float>();
      for (std::int64_t i = 0; i < values.numel(); ++i) {
        data[i] = static_cast<float>(rng.uniform());
      }
      sum_.set(static_cast<std::int64_t>(l), values);
    }
  }

 private:
  LayerSums& sum_ = keep("sum", {.reduction = Reduction::kSame});
};

}  // namespace

ScoreMethod magnitude_score() {
  return {
      .name = "magnitude",
      .unit = Unit::kNeuron,
      .reads_data = false,
      .neuron_sums = 1,
      .help = "product of the norms of the neuron's weight vectors",
      .measured_in = "a product of norms, without a unit",
      .make = make_observer<Magnitude>,
      .score = plain_sum};
}

ScoreMethod random_score() {
  return {
      .name = "random",
      .unit = Unit::kNeuron,
      .reads_data = false,
      .neuron_sums = 1,
      .help = "seeded random numbers, to compare with",
      .measured_in = "none",
      .make = make_observer<Random>,
      .score = plain_sum};
}

}  // namespace fettle::analyze
