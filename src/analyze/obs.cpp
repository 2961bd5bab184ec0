// SPDX-License-Identifier: Apache-2.0
// obs: the cost at which backward elimination with refitted output weights
// removes the neuron (see elimination.h), in nats summed over tokens. The
// second moment of an expert is sum_t (p h)(p h)^T over its tokens, p the
// mixing weight; that of the gradient is the mean of g g^T over the layer's
// tokens, g the gradient of the experts' summed output. A ridge of a part of
// the layer's mean second moment also keeps rarely hit experts from looking
// free. The moments of one layer are held at a time, so that a layer needs all
// its tokens in one sweep, and scores of two runs can't be added.
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "analyze/elimination.h"
#include "analyze/sum_observer.h"
#include "model/expert_loop.h"

namespace fettle::analyze {
namespace {

// Of the layer's mean diagonal.
constexpr double kRidge = 1e-3;
// So that a layer without a single token can be inverted too.
constexpr double kSmallest = 1e-12;

class Obs : public SumObserver {
 public:
  explicit Obs(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kBackward) {}

  bool wants_expert_gradients() const override { return true; }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::begin_layer(pass, layer, weights);
    if (pass != sweep::Pass::kBackward) return;
    const auto options =
        at::dtype(at::kFloat).device(weights.input_norm.device());
    const std::int64_t hidden = config().hidden_size;
    gradients_ = at::zeros({hidden, hidden}, options);
    tokens_ = 0;
    for (const std::int64_t width : config().layers[layer].expert_widths) {
      moments_.push_back(at::zeros({width, width}, options));
    }
  }

  void on_output_gradient(std::int64_t, const at::Tensor& d_output) override {
    const at::NoGradGuard no_grad;
    const at::Tensor g = d_output.to(at::kFloat);
    gradients_.addmm_(g.t(), g);
    tokens_ += g.size(0);
  }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    const at::Tensor a =
        view.h.to(at::kFloat).mul(view.weight.to(at::kFloat).unsqueeze(1));
    moments_[view.expert].addmm_(a.t(), a);
  }

  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::end_layer(pass, layer, weights);
    if (pass != sweep::Pass::kBackward) return;
    if (!moments_.empty()) scores_.set(layer, layer_scores(weights.experts));
    moments_.clear();
    gradients_.reset();
  }

 private:
  double damping(const model::ExpertBank& bank) const {
    double sum = 0;
    for (const at::Tensor& moment : moments_) {
      sum += moment.diagonal().sum(at::kDouble).item<double>();
    }
    const auto neurons =
        static_cast<double>(std::max<std::int64_t>(bank.offsets.back(), 1));
    return kRidge * sum / neurons + kSmallest;
  }

  // [S] fp64; NaN for an expert whose moments are not finite.
  at::Tensor layer_scores(const model::ExpertBank& bank) const {
    const at::NoGradGuard no_grad;
    at::Tensor scores = at::zeros({bank.offsets.back()}, at::kDouble);
    const double ridge = damping(bank);
    const at::Tensor gradients =
        gradients_.cpu()
            .to(at::kDouble)
            .div_(static_cast<double>(std::max<std::int64_t>(tokens_, 1)));
    model::Dispatch neurons;
    neurons.starts = bank.offsets;
    model::for_each_expert(neurons, true, [&](std::int64_t e) {
      const std::int64_t begin = bank.offsets[e];
      const at::Tensor w =
          bank.down.narrow(0, begin, bank.width(e)).cpu().to(at::kDouble);
      scores.narrow(0, begin, bank.width(e))
          .copy_(expert_scores(moments_[e].cpu(), w, gradients, ridge));
    });
    return scores;
  }

  static at::Tensor expert_scores(
      const at::Tensor& moment,
      const at::Tensor& w,
      const at::Tensor& gradients,
      double ridge) {
    const at::Tensor gram = at::mm(at::mm(w, gradients), w.t());
    const bool finite = std::isfinite(ridge) &&
                        at::isfinite(moment).all().item<bool>() &&
                        at::isfinite(gram).all().item<bool>();
    if (!finite) {
      return at::full(
          {w.size(0)}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
    }
    return elimination_scores(eliminate(damped_inverse(moment, ridge), gram));
  }

  LayerSums& scores_ = keep("sum", {.reduction = Reduction::kNone});
  std::vector<at::Tensor> moments_;  // [E] of [I, I], of the layer in use
  at::Tensor gradients_;             // [H, H], summed
  std::int64_t tokens_ = 0;
};

// One layer's moments, and what the eliminations at work keep in fp64.
std::int64_t moment_bytes(const model::ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  std::int64_t moments = 0;
  std::int64_t widest = 0;
  for (const model::LayerConfig& layer : config.layers) {
    std::int64_t values = 0;
    for (const std::int64_t width : layer.expert_widths) {
      values += width * width;
      widest = std::max(widest, width);
    }
    moments = std::max(moments, values);
  }
  const std::int64_t at_work = 6 * widest * widest + 2 * widest * hidden;
  return 4 * (moments + hidden * hidden) + 8 * hidden * hidden +
         8 * at::get_num_threads() * at_work;
}

}  // namespace

ScoreMethod obs_score() {
  return {
      .name = "obs",
      .unit = Unit::kNeuron,
      .needs_backward = true,
      .needs_one_chunk = true,
      .neuron_sums = 1,
      .help =
          "cost at which the neuron is removed when the others' output "
          "weights are fitted anew; for trims with repair",
      .make = make_observer<Obs>,
      .score = plain_sum,
      .layer_bytes = moment_bytes};
}

}  // namespace fettle::analyze
