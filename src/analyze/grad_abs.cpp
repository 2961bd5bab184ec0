// SPDX-License-Identifier: Apache-2.0
// grad_abs: mean over batches of the mean absolute gradient of the neuron's
// weights (3H, or 2H without a gate), the loss being the mean over the batch's
// scored tokens. The absolute value is taken of a whole batch's gradient: where
// a batch spans several micro-batches, a layer's expert gradients are held
// until it is complete.
#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "analyze/sum_observer.h"

namespace fettle::analyze {
namespace {

struct NeuronGradient {
  at::Tensor gate_up;  // [P I, H] fp32
  at::Tensor down;     // [I, H] fp32
};

NeuronGradient gradient(const model::ExpertGradView& view) {
  const at::Tensor inputs = view.d_gate_up.to(at::kFloat).t();
  const at::Tensor outputs = view.h.to(at::kFloat).t();
  return {
      at::mm(inputs, view.x.to(at::kFloat)),
      at::mm(outputs, view.dy.to(at::kFloat))};
}

// [I]: mean absolute value over each neuron's weights.
at::Tensor mean_abs(const NeuronGradient& gradient) {
  const std::int64_t width = gradient.down.size(0);
  const std::int64_t inputs = gradient.gate_up.size(0) / width;
  const at::Tensor in = gradient.gate_up.abs().sum(1).view({inputs, width});
  const at::Tensor sum = in.sum(0) + gradient.down.abs().sum(1);
  return sum / static_cast<double>((inputs + 1) * gradient.down.size(1));
}

// For one expert in the batch in progress: the gradient summed so far, or what
// is needed of it where the batch came whole.
struct Held {
  NeuronGradient sum;
  at::Tensor mean;  // [I]
};

class GradAbs : public SumObserver {
 public:
  explicit GradAbs(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kBackward) {}

  bool wants_expert_gradients() const override { return true; }

  void begin_sweeps(std::span<const GradientBatch> batches) override {
    batch_of_.clear();
    batches_.assign(batches.begin(), batches.end());
    whole_ = std::ranges::all_of(
        batches, [](const GradientBatch& b) { return b.micro_batches == 1; });
    for (std::size_t b = 0; b < batches.size(); ++b) {
      batch_of_.insert(batch_of_.end(), batches[b].micro_batches, b);
    }
  }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    SumObserver::begin_layer(pass, layer, weights);
    held_.assign(config().layers[layer].expert_widths.size(), {});
    seen_.assign(batches_.size(), 0);
  }

  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override {
    const at::NoGradGuard no_grad;
    Held& held = held_[view.expert];
    NeuronGradient part = gradient(view);
    if (whole_) {
      held.mean = mean_abs(part);
    } else if (!held.sum.down.defined()) {
      held.sum = std::move(part);
    } else {
      held.sum.gate_up.add_(part.gate_up);
      held.sum.down.add_(part.down);
    }
  }

  void end_micro_batch(
      sweep::Pass pass, std::int64_t, std::int64_t micro_batch) override {
    if (pass != sweep::Pass::kBackward) return;
    const std::size_t batch = batch_of_[micro_batch];
    if (++seen_[batch] < batches_[batch].micro_batches) return;
    const at::NoGradGuard no_grad;
    const auto tokens = static_cast<double>(batches_[batch].loss_tokens);
    if (tokens > 0) count_.add_all(at::ones({}, at::kDouble));
    for (std::size_t e = 0; e < held_.size(); ++e) {
      Held held = std::exchange(held_[e], {});
      if (held.sum.down.defined()) held.mean = mean_abs(held.sum);
      if (!held.mean.defined() || tokens == 0) continue;
      sum_.add(static_cast<std::int64_t>(e), held.mean / tokens);
    }
  }

 private:
  LayerSums& sum_ = keep("sum");
  LayerSums& count_ = keep("batches", {.unit = Unit::kLayer});
  std::vector<GradientBatch> batches_;
  std::vector<std::size_t> batch_of_;  // of a micro-batch
  bool whole_ = false;                 // every batch is one micro-batch
  std::vector<Held> held_;             // [E], of the batch in progress
  std::vector<std::int64_t> seen_;     // micro-batches of each batch so far
};

at::Tensor mean_gradient(const Sums& sums, const ExpertWidths&) {
  return values_of(sums, "sum")
      .div(values_of(sums, "batches").clamp_min(1))
      .to(at::kFloat);
}

// A batch in progress: its sum, one part of it, and their absolute values.
std::int64_t gradient_bytes(const model::ModelConfig& config) {
  std::int64_t widest = 0;
  for (const model::LayerConfig& layer : config.layers) {
    widest = std::max(widest, layer.total_width());
  }
  return 3 * 4 * config.hidden_size * widest;
}

}  // namespace

ScoreMethod grad_abs_score() {
  return {
      .name = "grad_abs",
      .unit = Unit::kNeuron,
      .needs_backward = true,
      .needs_gradient_batches = true,
      .neuron_sums = 1,
      .help = "mean absolute gradient of the neuron's weights over batches",
      .measured_in = "nats per unit of weight, the mean over batches",
      .make = make_observer<GradAbs>,
      .score = mean_gradient,
      .layer_bytes = gradient_bytes};
}

}  // namespace fettle::analyze
