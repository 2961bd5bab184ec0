// SPDX-License-Identifier: Apache-2.0
// obs: the cost at which backward elimination with refitted output weights
// removes the neuron (see elimination.h), in nats summed over tokens. The
// second moment of an expert is sum_t (p h)(p h)^T over its tokens, p the
// mixing weight; that of the gradient is the mean of g g^T over the layer's
// tokens, g the gradient of the experts' summed output. A ridge of a part of
// the layer's mean second moment also keeps rarely hit experts from looking
// free. The moments of one layer are held at a time, so that a layer needs all
// its tokens in one sweep and scores of two runs can't be added, unless the
// moments of all layers are asked to be kept: they are sums.
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "analyze/elimination.h"
#include "analyze/sum_observer.h"
#include "model/layers/expert_runs.h"
#include "ranks/group.h"
#include "ranks/ordered_sum.h"

namespace fettle::analyze {
namespace {

// Relative to the layer's mean diagonal.
constexpr double kRidge = 1e-3;
// Lets a layer without a single token be inverted too.
constexpr double kSmallest = 1e-12;

double damping_of(double trace, std::int64_t neurons) {
  return kRidge * trace /
             static_cast<double>(std::max<std::int64_t>(neurons, 1)) +
         kSmallest;
}

// moment: sum of (p h)(p h)^T; gram: W (sum of g g^T) W^T over `tokens`; both
// [I, I] fp64. NaN where they are not finite.
at::Tensor expert_scores(
    const at::Tensor& moment,
    const at::Tensor& gram,
    double tokens,
    double damping) {
  const bool finite = std::isfinite(damping) &&
                      at::isfinite(moment).all().item<bool>() &&
                      at::isfinite(gram).all().item<bool>();
  if (!finite) {
    return at::full(
        {moment.size(0)},
        std::numeric_limits<double>::quiet_NaN(),
        at::kDouble);
  }
  return elimination_scores(
      eliminate(damped_inverse(moment, damping), gram / std::max(tokens, 1.0)));
}

class Obs : public SumObserver {
 public:
  explicit Obs(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kBackward), team_(context.team) {
    if (!context.keep_moments) {
      scores_ = &keep("sum", {.reduction = Reduction::kNone});
      return;
    }
    kept_moments_ = &keep("moment", {.unit = Unit::kPair});
    kept_grams_ = &keep("gram", {.unit = Unit::kPair});
    kept_tokens_ = &keep("tokens", {.unit = Unit::kLayer});
  }

  bool wants_expert_gradients() const override { return true; }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::begin_layer(pass, layer, weights);
    if (pass != sweep::Pass::kBackward) return;
    const auto options = at::dtype(at::kFloat).device(weights.device());
    const std::int64_t hidden = config().hidden_size;
    gradients_ = at::zeros({hidden, hidden}, options);
    tokens_ = at::zeros({1}, at::kLong);
    for (const std::int64_t width : config().layers[layer].expert_widths) {
      moments_.push_back(at::zeros({width, width}, options));
    }
  }

  void on_output_gradient(std::int64_t, const at::Tensor& d_output) override {
    const at::NoGradGuard no_grad;
    const at::Tensor g = d_output.to(at::kFloat);
    gradients_.addmm_(g.t(), g);
    tokens_.add_(g.size(0));
  }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    const at::Tensor a =
        view.h.to(at::kFloat).mul(view.weight.to(at::kFloat).unsqueeze(1));
    moments_[view.expert].addmm_(a.t(), a);
  }

  // What is kept of it comes from these, after they are added up.
  void for_each_sum(
      sweep::Pass pass, std::int64_t, const sweep::SumVisitor& visit) override {
    if (pass != sweep::Pass::kBackward || moments_.empty()) return;
    for (at::Tensor& moment : moments_) visit(moment, ranks::Reduction::kSum);
    visit(gradients_, ranks::Reduction::kSum);
    visit(tokens_, ranks::Reduction::kSum);
  }

  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    if (pass == sweep::Pass::kBackward && !moments_.empty()) {
      finish(layer, weights.experts);
    }
    SumObserver::end_layer(pass, layer, weights);
    if (pass != sweep::Pass::kBackward) return;
    moments_.clear();
    gradients_.reset();
  }

 private:
  // Takes the layer's moments for all experts, side by side.
  void finish(std::int64_t layer, const model::ExpertBank& bank) {
    const at::NoGradGuard no_grad;
    at::Tensor scores = at::zeros({bank.offsets.back()}, at::kDouble);
    const at::Tensor gradients = gradients_.cpu().to(at::kDouble);
    double trace = 0;
    for (const at::Tensor& moment : moments_) {
      trace += moment.diagonal().sum(at::kDouble).item<double>();
    }
    const double damping = damping_of(trace, bank.offsets.back());
    const auto tokens = static_cast<double>(tokens_.item<std::int64_t>());
    model::Dispatch neurons;
    neurons.starts = bank.offsets;
    model::for_each_expert(neurons, [&](std::int64_t e) {
      if (scores_ != nullptr && !owns(e)) return;
      const std::int64_t begin = bank.offsets[e];
      const at::Tensor w = bank.expert(e).down.cpu().to(at::kDouble);
      const at::Tensor moment = moments_[e].cpu().to(at::kDouble);
      const at::Tensor gram = at::mm(at::mm(w, gradients), w.t());
      if (scores_ != nullptr) {
        scores.narrow(0, begin, bank.width(e))
            .copy_(expert_scores(moment, gram, tokens, damping));
      } else {
        kept_moments_->add(e, moment.flatten());
        kept_grams_->add(e, gram.flatten());
      }
    });
    if (scores_ != nullptr) {
      share(scores);
      scores_->set(layer, scores);
    } else {
      kept_tokens_->add_all(
          at::scalar_tensor(tokens, at::kDouble).to(gradients_.device()));
    }
  }

  // Ranks share the eliminations, by experts.
  bool owns(std::int64_t expert) const {
    return team_.group == nullptr ||
           expert % team_.group->size() == team_.group->rank();
  }
  // Every rank has 0 for the others' experts: as integers, the bits add up.
  void share(const at::Tensor& scores) const {
    if (team_.group == nullptr || team_.group->size() == 1) return;
    const at::Tensor bits = scores.view(at::kLong);
    ranks::ShardSum own({ranks::Reduction::kSum});
    own.add({team_.group->rank(), 1, {bits.clone()}});
    ranks::sum_over_ranks(
        {team_.group, team_.group->size()}, std::move(own), {bits});
  }

  LayerSums* scores_ = nullptr;
  LayerSums* kept_moments_ = nullptr;
  LayerSums* kept_grams_ = nullptr;
  LayerSums* kept_tokens_ = nullptr;
  std::vector<at::Tensor> moments_;  // [E] of [I, I], of the layer in use
  at::Tensor gradients_;             // [H, H], summed
  at::Tensor tokens_;                // [1] int64
  ranks::Team team_;
};

// The scores, or what they are made of.
at::Tensor obs_of(const Sums& sums, const ExpertWidths& widths) {
  if (sums.contains("sum")) return plain_sum(sums, widths);
  const at::Tensor& moments = values_of(sums, "moment");
  const at::Tensor& grams = values_of(sums, "gram");
  const double tokens = values_of(sums, "tokens").item<double>();
  const auto offsets = neuron_offsets(widths);
  std::vector<std::int64_t> pairs{0};
  double trace = 0;
  const auto square = [&](const at::Tensor& from, std::size_t e) {
    return from.narrow(0, pairs[e], widths[e] * widths[e])
        .view({widths[e], widths[e]});
  };
  for (std::size_t e = 0; e < widths.size(); ++e) {
    pairs.push_back(pairs.back() + widths[e] * widths[e]);
    trace += square(moments, e).diagonal().sum().item<double>();
  }
  const double damping = damping_of(trace, offsets.back());
  at::Tensor scores = at::zeros({offsets.back()}, at::kDouble);
  model::Dispatch neurons;
  neurons.starts = offsets;
  model::for_each_expert(neurons, [&](std::int64_t expert) {
    const auto e = static_cast<std::size_t>(expert);
    scores.narrow(0, offsets[e], widths[e])
        .copy_(expert_scores(
            square(moments, e), square(grams, e), tokens, damping));
  });
  return scores.to(at::kFloat);
}

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
      .measured_in = "the loss that is expected, nats summed over tokens",
      .nats_per_score = 1.0,
      .make = make_observer<Obs>,
      .score = obs_of,
      .layer_bytes = moment_bytes};
}

}  // namespace fettle::analyze
