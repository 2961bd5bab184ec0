// SPDX-License-Identifier: Apache-2.0
#include "sweep/sweep.h"

#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "core/error.h"
#include "core/rng.h"
#include "model/layers/decoder_layer.h"
#include "model/weights/weight_visit.h"
#include "sweep/head.h"
#include "sweep/shard_sums.h"

namespace fettle::sweep {
namespace {

Progress layer_progress(
    Reporter* reporter, const char* label, std::int64_t layer_tokens) {
  return {
      reporter,
      label,
      static_cast<std::uint64_t>(layer_tokens),
      "layer tokens"};
}

// What the head shows of each micro-batch, and that it has shown all.
class HeadSums {
 public:
  HeadSums(
      std::span<Observer* const> observers,
      at::Device device,
      const SweepOptions& options)
      : observers_(observers),
        sums_(
            "the head",
            [observers, device](const SumVisitor& visit) {
              for (Observer* o : observers) {
                if (!o->wants_global_gradients()) continue;
                o->for_each_head_sum(device, visit);
              }
            },
            options) {}

  void end_micro_batch(std::size_t m) {
    sums_.end_micro_batch(static_cast<std::int64_t>(m));
  }
  void end() {
    sums_.end();
    for (Observer* o : observers_) {
      if (o->wants_global_gradients()) o->end_head();
    }
  }

 private:
  std::span<Observer* const> observers_;
  ShardSums sums_;
};

}  // namespace

Sweep::Sweep(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const SweepOptions& options)
    : model_(model), options_(options), activations_(options.activations) {
  batches_.reserve(batches.size());
  for (const auto& batch : batches) {
    batches_.push_back(model::make_micro_batch(
        model.config(),
        batch.to(model.options().device),
        options.first_token + tokens_));
    tokens_ += batch.tokens();
  }
}

at::Tensor Sweep::fetch(std::int64_t layer, std::int64_t m) const {
  return activations_.get({layer, m})
      .to(model_.options().device, /*non_blocking=*/true);
}

model::LayerContext Sweep::context(std::int64_t layer, std::int64_t m) {
  return {
      .config = model_.config(),
      .layer = layer,
      .batch = batches_[m],
      .tap = &tap_,
      .router = &options_.router};
}

at::Tensor Sweep::pass_layer(
    std::int64_t layer,
    std::int64_t m,
    const model::LayerWeights& weights,
    bool keep_graph) {
  if (!keep_graph) {
    return model::decoder_layer(context(layer, m), weights, fetch(layer, m));
  }
  const at::AutoGradMode grad(true);
  const at::Tensor x = fetch(layer, m).detach().set_requires_grad(true);
  const at::Tensor y = model::decoder_layer(context(layer, m), weights, x);
  graphs_[layer].push_back({x, y});
  return y.detach();
}

void Sweep::forward(
    std::span<Observer* const> observers, const ForwardOptions& options) {
  const at::NoGradGuard no_grad;
  const std::int64_t layers = model_.config().num_layers();
  const auto count = static_cast<std::int64_t>(batches_.size());
  const bool graphs = options.keep_boundaries && options_.keep_graphs;
  Progress progress =
      layer_progress(options_.reporter, "forward", layers * tokens_);
  for (std::int64_t m = 0; m < count; ++m) {
    activations_.put({0, m}, model::embed(model_, batches_[m].tokens.ids));
  }
  tap_.begin(Pass::kForward, observers);
  graphs_.assign(graphs ? layers : 0, {});
  weights_.clear();
  for (std::int64_t l = 0; l < layers; ++l) {
    const auto weights = model_.acquire(l, l + 1 < layers ? l + 1 : -1);
    if (graphs) weights_.push_back(weights);
    for (Observer* o : observers) o->begin_layer(Pass::kForward, l, *weights);
    ShardSums sums({Pass::kForward, l, observers}, options_);
    for (std::int64_t m = 0; m < count; ++m) {
      activations_.put({l + 1, m}, pass_layer(l, m, *weights, graphs));
      if (graphs || !options.keep_boundaries) activations_.erase({l, m});
      for (Observer* o : observers) o->end_micro_batch(Pass::kForward, l, m);
      sums.end_micro_batch(m);
      progress.advance(static_cast<std::uint64_t>(batches_[m].tokens.tokens()));
    }
    sums.end();
    for (Observer* o : observers) o->end_layer(Pass::kForward, l, *weights);
  }
  boundaries_kept_ = options.keep_boundaries;
}

at::Tensor Sweep::hidden(std::int64_t m) const {
  return fetch(model_.config().num_layers(), m);
}

std::vector<at::Tensor> Sweep::token_nll() {
  const auto held = model_.lm_head();  // for all micro-batches
  std::vector<at::Tensor> result;
  for (std::size_t m = 0; m < batches_.size(); ++m) {
    result.push_back(head_nll(
                         model_,
                         hidden(static_cast<std::int64_t>(m)),
                         batches_[m].tokens.targets)
                         .nll);
  }
  return result;
}

std::vector<at::Tensor> Sweep::through_head(
    std::span<Observer* const> observers,
    const std::function<HeadResult(const HeadInput&)>& head) {
  const std::int64_t layers = model_.config().num_layers();
  const auto held = model_.lm_head();
  HeadSums sums(observers, model_.options().device, options_);
  std::vector<at::Tensor> result;
  for (std::size_t m = 0; m < batches_.size(); ++m) {
    const auto key = static_cast<std::int64_t>(m);
    HeadResult one = head({hidden(key), batches_[m].tokens.targets, observers});
    activations_.put({layers, key}, one.d_hidden);
    result.push_back(one.nll);
    sums.end_micro_batch(m);
  }
  sums.end();
  return result;
}

std::vector<at::Tensor> Sweep::token_nll_with_gradient(
    double loss_scale, std::span<Observer* const> observers) {
  return through_head(observers, [&](const HeadInput& input) {
    return head_nll_with_gradient(model_, input, loss_scale);
  });
}

std::vector<at::Tensor> Sweep::drawn_nll_with_gradient(
    std::uint64_t seed, std::span<Observer* const> observers) {
  Rng rng(seed);
  return through_head(observers, [&](const HeadInput& input) {
    const std::int64_t tokens = input.targets.size(0);
    at::Tensor draws = at::empty({tokens}, at::kFloat);
    float* const data = draws.mutable_data_ptr<float>();
    for (std::int64_t t = 0; t < tokens; ++t) {
      data[t] = static_cast<float>(rng.uniform());
    }
    return head_drawn_with_gradient(model_, input, draws);
  });
}

Sweep::TokenLosses Sweep::distill_with_gradient(
    const TeacherRows& teacher,
    const DistillScale& scale,
    std::span<Observer* const> observers) {
  FETTLE_ASSERT(teacher.ids.size(0) == tokens_);
  const std::int64_t layers = model_.config().num_layers();
  const auto held = model_.lm_head();
  HeadSums sums(observers, model_.options().device, options_);
  TokenLosses losses;
  std::int64_t first = 0;
  for (std::size_t m = 0; m < batches_.size(); ++m) {
    const auto key = static_cast<std::int64_t>(m);
    const model::TokenBatch& tokens = batches_[m].tokens;
    DistillResult head = head_distill_with_gradient(
        model_,
        {hidden(key), tokens.targets, observers},
        teacher.narrow(first, tokens.tokens()),
        scale);
    activations_.put({layers, key}, head.d_hidden);
    losses.nll.push_back(head.nll);
    losses.kl.push_back(head.kl);
    first += tokens.tokens();
    sums.end_micro_batch(m);
  }
  sums.end();
  return losses;
}

TeacherRows Sweep::teacher_rows(std::int64_t k) const {
  const auto held = model_.lm_head();
  std::vector<at::Tensor> ids, log_probs, rest;
  if (batches_.empty()) {
    return {at::empty({0, k}, at::kLong), at::empty({0, k}), at::empty({0})};
  }
  for (std::size_t m = 0; m < batches_.size(); ++m) {
    const TeacherRows rows = head_teacher(
        model_,
        hidden(static_cast<std::int64_t>(m)),
        batches_[m].tokens.targets,
        k);
    ids.push_back(rows.ids);
    log_probs.push_back(rows.log_probs);
    rest.push_back(rows.rest);
  }
  return {at::cat(ids), at::cat(log_probs), at::cat(rest)};
}

std::shared_ptr<model::LayerWeights> Sweep::weights_for_backward(
    std::int64_t layer, std::int64_t first_layer) {
  // A graph belongs to the weights it was made with.
  if (!graphs_.empty()) return weights_[layer];
  return model_.acquire(layer, layer > first_layer ? layer - 1 : -1);
}

void Sweep::backward(
    std::span<Observer* const> observers, std::int64_t first_layer) {
  FETTLE_ASSERT(boundaries_kept_);
  const std::int64_t layers = model_.config().num_layers();
  const auto count = static_cast<std::int64_t>(batches_.size());
  Progress progress = layer_progress(
      options_.reporter, "backward", (layers - first_layer) * tokens_);
  tap_.begin(Pass::kBackward, observers);
  for (std::int64_t l = layers - 1; l >= first_layer; --l) {
    const auto weights = weights_for_backward(l, first_layer);
    for (Observer* o : observers) o->begin_layer(Pass::kBackward, l, *weights);
    ShardSums sums({Pass::kBackward, l, observers}, options_);
    for (std::int64_t m = 0; m < count; ++m) {
      backward_through(l, m, *weights);
      for (Observer* o : observers) o->end_micro_batch(Pass::kBackward, l, m);
      sums.end_micro_batch(m);
      progress.advance(static_cast<std::uint64_t>(batches_[m].tokens.tokens()));
    }
    sums.end();
    for (Observer* o : observers) o->end_layer(Pass::kBackward, l, *weights);
    model::for_each_tensor(*weights, [](at::Tensor& tensor) {
      tensor.mutable_grad().reset();
      tensor.set_requires_grad(false);
    });
  }
  if (first_layer == 0) show_embeddings(observers);
  boundaries_kept_ = false;
}

void Sweep::show_embeddings(std::span<Observer* const> observers) {
  const at::NoGradGuard no_grad;
  const double multiplier = model::embedding_multiplier(model_);
  for (Observer* o : observers) {
    if (!o->wants_global_gradients()) continue;
    ShardSums sums(
        "the embeddings",
        [o](const SumVisitor& visit) { o->for_each_embedding_sum(visit); },
        options_);
    for (std::size_t m = 0; m < batches_.size(); ++m) {
      const at::Tensor gradient = fetch(0, static_cast<std::int64_t>(m));
      o->on_embedding_gradient(
          batches_[m].tokens.ids,
          multiplier == 1.0 ? gradient : gradient * multiplier);
      sums.end_micro_batch(static_cast<std::int64_t>(m));
    }
    sums.end();
    o->end_embeddings();
  }
}

void Sweep::backward_through(
    std::int64_t layer, std::int64_t m, const model::LayerWeights& weights) {
  const at::AutoGradMode grad(true);
  const at::Tensor dy = fetch(layer + 1, m);
  activations_.erase({layer + 1, m});
  Graph graph;
  if (graphs_.empty()) {
    graph.x = fetch(layer, m).detach().set_requires_grad(true);
    graph.y = model::decoder_layer(context(layer, m), weights, graph.x);
  } else {
    graph = std::exchange(graphs_[layer][m], {});
  }
  torch::autograd::backward({graph.y}, {dy});
  activations_.put({layer, m}, graph.x.grad());
}

}  // namespace fettle::sweep
