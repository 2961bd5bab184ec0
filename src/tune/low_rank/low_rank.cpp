// SPDX-License-Identifier: Apache-2.0
#include "tune/low_rank/low_rank.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "model/layers/layer_tap.h"
#include "tune/part/clipping.h"

namespace fettle::tune {

namespace {

AdamWState narrow(
    const AdamWState& state, std::int64_t first, std::int64_t count) {
  return {
      state.first.narrow(0, first, count),
      state.second.narrow(0, first, count),
      state.age.narrow(0, first, count)};
}

// Taps of several experts may do so at once.
void see(const at::Tensor& seen, std::int64_t matrix) {
  seen.mutable_data_ptr<std::uint8_t>()[matrix] = 1;
}

// Factors of the gradient that a tap sees, of one expert's weights or a run's.
template <class View>
GradientFactors factors(const LowRankTarget& target, const View& view) {
  if (target.upright()) return {view.d_gate_up, view.x};
  return {view.h, view.dy};
}

}  // namespace

LowRank::LowRank(
    const model::ModelReader& reader,
    at::Device device,
    const LowRankOptions& options)
    : device_(device), options_(options) {
  check_kinds(reader.config());
  for (std::int64_t l = 0; l < reader.config().num_layers(); ++l) {
    Layer& layer = layers_.emplace_back();
    std::vector<model::WeightId> matrices;
    for (auto& target : low_rank_targets(options.kinds, reader.config(), l)) {
      if (!model::is_tapped(target.role)) matrices.push_back({target.role, l});
      const std::int64_t count = target.matrices();
      auto pairs =
          LowRankPairs::start(std::move(target), options.rank, options.seed);
      pairs.left = pairs.left.to(device);
      pairs.right = pairs.right.to(device);
      const auto left = options.owners.moments(l, pairs.left);
      const auto right = options.owners.moments(l, pairs.right);
      layer.targets.push_back(
          {std::move(pairs), left, right, {}, at::zeros({count}, at::kByte)});
    }
    layer.matrices = WeightGradients(std::move(matrices));
  }
}

void LowRank::check_kinds(const model::ModelConfig& config) const {
  const auto check = [&](const LowRankKinds& kind, const char* name) {
    for (std::int64_t l = 0; l < config.num_layers(); ++l) {
      if (!low_rank_targets(kind, config, l).empty()) return;
    }
    throw UserError(
        "tune",
        "lora_targets",
        fmt::format(
            "expected weights that the model has, found {}, of which it has "
            "none; leave it out",
            name));
  };
  if (options_.kinds.experts) check({.experts = true}, "experts");
  if (options_.kinds.attention) check({.attention = true}, "attention");
  if (options_.kinds.shared) check({.shared = true}, "shared");
  if (options_.kinds.dense) check({.dense = true}, "dense");
}

float LowRank::scale() const {
  return static_cast<float>(
      options_.alpha / static_cast<double>(options_.rank));
}

bool LowRank::trains(std::int64_t layer) const {
  return !layers_[layer].targets.empty();
}

std::int64_t LowRank::trained_weights(std::int64_t layer) const {
  std::int64_t total = 0;
  for (const Trained& target : layers_[layer].targets) {
    total += target.pairs.weights();
  }
  return total;
}

void LowRank::patch(std::int64_t layer, model::LayerWeights& weights) const {
  for (const Trained& target : layers_[layer].targets) {
    add_pairs(target.pairs, scale(), weights);
  }
}

void LowRank::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  Layer& own = layers_[layer];
  own.matrices.begin_layer(pass, weights);
  if (pass != sweep::Pass::kBackward) return;
  for (Trained& target : own.targets) {
    target.gradient = {
        at::zeros_like(target.pairs.left), at::zeros_like(target.pairs.right)};
    target.seen.zero_();
  }
}

void LowRank::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  if (pass != sweep::Pass::kBackward) return;
  Layer& own = layers_[layer];
  own.matrices.collect_shard();
  fold(own);
  for (Trained& target : own.targets) {
    visit(target.gradient.left, options_.owners.sum_of(layer));
    visit(target.gradient.right, options_.owners.sum_of(layer));
    visit(target.seen, ranks::Reduction::kMax);
  }
}

void LowRank::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  const std::int64_t e = view.expert;
  for (Trained& target : layers_[layer].targets) {
    if (!target.pairs.target.of_experts()) continue;
    const LowRankPairs like{
        target.pairs.target, target.gradient.left, target.gradient.right};
    add_pair_gradient(
        target.pairs,
        e,
        factors(target.pairs.target, view),
        scale(),
        {like.left_of(e), like.right_of(e)});
    see(target.seen, e);
  }
}

void LowRank::on_run_gradient(
    std::int64_t layer, const model::RunGradView& view) {
  if (view.run.experts() == 1) {
    TrainablePart::on_run_gradient(layer, view);
    return;
  }
  for (Trained& target : layers_[layer].targets) {
    if (!target.pairs.target.of_experts()) continue;
    add_run_gradient(
        target.pairs,
        view,
        factors(target.pairs.target, view),
        scale(),
        target.gradient);
    for (std::int64_t e = view.run.first; e < view.run.end; ++e) {
      if (view.dispatch.count(e) > 0) see(target.seen, e);
    }
  }
}

void LowRank::on_projection_gradient(
    std::int64_t layer,
    model::Role role,
    const at::Tensor& x,
    const at::Tensor& dy) {
  const at::NoGradGuard no_grad;
  for (Trained& target : layers_[layer].targets) {
    if (target.pairs.target.role != role) continue;
    add_pair_gradient(target.pairs, 0, {dy, x}, scale(), target.gradient);
    see(target.seen, 0);
  }
}

void LowRank::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass != sweep::Pass::kBackward) return;
  Layer& own = layers_[layer];
  own.matrices.end_layer(pass);
  fold(own);
  for (Trained& target : own.targets) {
    options_.owners.leave(layer, target.gradient.left);
    options_.owners.leave(layer, target.gradient.right);
  }
}

std::int64_t LowRank::owner(std::int64_t layer) const {
  return options_.owners.owner(layer);
}

void LowRank::fold(Layer& own) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < own.matrices.ids().size(); ++i) {
    if (!own.matrices[i].defined()) continue;
    const auto target = std::ranges::find_if(own.targets, [&](const auto& t) {
      return t.pairs.target.role == own.matrices.ids()[i].role;
    });
    add_pair_gradient(
        target->pairs, own.matrices[i], scale(), target->gradient);
    see(target->seen, 0);
  }
  own.matrices.clear();
}

PairGradient LowRank::gradient(
    std::int64_t layer, std::string_view name) const {
  for (const Trained& target : layers_[layer].targets) {
    if (target.pairs.target.name() == name) return target.gradient;
  }
  return {};
}

double LowRank::gradient_norm_squared(std::int64_t layer) const {
  double total = 0.0;
  for (const Trained& target : layers_[layer].targets) {
    if (!target.gradient.left.defined()) continue;
    total += (norm_squared(target.gradient.left, 0) +
              norm_squared(target.gradient.right, 0))
                 .item<double>();
  }
  return total;
}

// Matrices that no token reached learn nothing and don't decay; those between
// two such are updated together.
void LowRank::update(Trained& target, double rate) {
  const LowRankTarget& of = target.pairs.target;
  const auto step = [&](at::Tensor& values,
                        AdamWState& adam,
                        const at::Tensor& gradient,
                        std::int64_t first,
                        std::int64_t count) {
    if (count == 0) return;
    at::Tensor part = values.narrow(0, first, count);
    AdamWState state = narrow(adam, first, count);
    adamw_step(
        options_.adamw, rate, gradient.narrow(0, first, count), part, state);
  };
  const std::int64_t rank = target.pairs.rank();
  const auto* const seen = target.seen.const_data_ptr<std::uint8_t>();
  std::int64_t begin = 0;
  for (std::int64_t e = 0; e <= of.matrices(); ++e) {
    if (e < of.matrices() && seen[e] != 0) continue;
    if (begin < e) {
      step(
          target.pairs.left,
          target.left_adam,
          target.gradient.left,
          of.offsets[begin],
          of.offsets[e] - of.offsets[begin]);
      step(
          target.pairs.right,
          target.right_adam,
          target.gradient.right,
          begin * rank,
          (e - begin) * rank);
    }
    begin = e + 1;
  }
}

void LowRank::update(std::int64_t layer, const UpdateInput& input) {
  std::vector<at::Tensor> changed;
  const bool owns = options_.owners.owns(layer);
  for (Trained& target : layers_[layer].targets) {
    if (!target.gradient.left.defined()) continue;
    if (input.gradient_scale != 1.0 && owns) {
      target.gradient.left.mul_(input.gradient_scale);
      target.gradient.right.mul_(input.gradient_scale);
    }
    update(target, learning_rate(input.step));
    target.gradient = {};
    changed.push_back(target.pairs.left);
    changed.push_back(target.pairs.right);
  }
  options_.owners.share(layer, changed);
}

double LowRank::learning_rate(std::int64_t step) const {
  return tune::learning_rate(options_.schedule, step);
}

}  // namespace fettle::tune
