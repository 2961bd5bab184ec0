// SPDX-License-Identifier: Apache-2.0
// Scores of whole experts from one forward sweep.
#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

// reap: mean over the expert's tokens of mixing weight times output norm.
// Source: Lasby et al., "REAP the experts", 2025, equation 9.
class Reap : public SumObserver {
 public:
  explicit Reap(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kForward) {}

  bool wants_experts() const override { return true; }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::begin_layer(pass, layer, weights);
    if (pass != sweep::Pass::kForward) return;
    constant_ = weights.experts.constant;
    if (constant_.defined()) empty_norms_ = empty_norms(weights.experts);
  }

  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::end_layer(pass, layer, weights);
    constant_.reset();
  }

  void on_routing(std::int64_t, const model::RoutingView& view) override {
    const at::NoGradGuard no_grad;
    tokens_.add_all(routed_tokens(view));
    if (constant_.defined()) {
      norms_.add_all(routed_mass(view).mul_(empty_norms_));
    }
  }

  void on_expert(std::int64_t, const model::ExpertView& view) override {
    const at::NoGradGuard no_grad;
    at::Tensor output = view.y.to(at::kFloat);
    if (constant_.defined()) output = output + constant_[view.expert];
    const at::Tensor norms = output.norm(2, 1);
    norms_.add(view.expert, norms.mul(view.weight.to(at::kFloat)).sum());
  }

 private:
  // An expert without neurons is not shown to on_expert: its output is its
  // constant, for every token. [E]: that norm, 0 for the other experts.
  static at::Tensor empty_norms(const model::ExpertBank& bank) {
    const at::NoGradGuard no_grad;
    at::Tensor norms = bank.constant.to(at::kDouble).norm(2, 1);
    for (std::int64_t e = 0; e < bank.size(); ++e) {
      if (bank.width(e) > 0) norms[e].zero_();
    }
    return norms;
  }

  LayerSums& norms_ = keep("norms", {.unit = Unit::kExpert});
  LayerSums& tokens_ = keep("tokens", {.unit = Unit::kExpert});
  at::Tensor constant_;     // [E, H] of the layer in use, or undefined
  at::Tensor empty_norms_;  // [E]
};

at::Tensor reap(const Sums& sums, const ExpertWidths&) {
  return values_of(sums, "norms")
      .div(values_of(sums, "tokens").clamp_min(1))
      .to(at::kFloat);
}

class Frequency : public SumObserver {
 public:
  explicit Frequency(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kForward) {}

  void on_routing(std::int64_t, const model::RoutingView& view) override {
    const at::NoGradGuard no_grad;
    sum_.add_all(routed_tokens(view));
  }

 private:
  LayerSums& sum_ = keep("sum", {.unit = Unit::kExpert});
};

class GateMass : public SumObserver {
 public:
  explicit GateMass(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kForward) {}

  void on_routing(std::int64_t, const model::RoutingView& view) override {
    const at::NoGradGuard no_grad;
    sum_.add_all(routed_mass(view));
  }

 private:
  LayerSums& sum_ = keep("sum", {.unit = Unit::kExpert});
};

}  // namespace

ScoreMethod reap_score() {
  return {
      .name = "reap",
      .unit = Unit::kExpert,
      .help = "mean of mixing weight times norm of the expert's output",
      .measured_in = "a norm of hidden states, the mean of its tokens",
      .make = make_observer<Reap>,
      .score = reap};
}

ScoreMethod frequency_score() {
  return {
      .name = "frequency",
      .unit = Unit::kExpert,
      .help = "number of tokens that chose the expert",
      .measured_in = "tokens",
      .make = make_observer<Frequency>,
      .score = plain_sum};
}

ScoreMethod gate_mass_score() {
  return {
      .name = "gate_mass",
      .unit = Unit::kExpert,
      .help = "sum of the expert's mixing weights",
      .measured_in = "mixing weight, summed over tokens",
      .make = make_observer<GateMass>,
      .score = plain_sum};
}

}  // namespace fettle::analyze
