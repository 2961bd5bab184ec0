// SPDX-License-Identifier: Apache-2.0
// Second moments of what enters each matrix of a layer: the Hessian of the
// squared error of its output, up to a factor. Matrices that share an input
// share the moments: gate and up; q, k and v.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/layers/layer_tap.h"
#include "model/weights/layer_weights.h"
#include "sweep/observer.h"

namespace fettle::quant {

enum class Calibration {
  kRouted,  // an expert's statistics are of the tokens that chose it
  kAll,     // of all tokens, weighted by the router's probability
};

struct HessianOptions {
  Calibration calibration = Calibration::kRouted;
  bool gate_weighted = true;  // an expert's tokens count by p², else by 1
};

// Σ w² x xᵀ over the tokens seen.
struct Hessian {
  at::Tensor sum;           // [C, C] fp32
  std::int64_t tokens = 0;  // that entered it
  // Some of the x [n, C] fp32 and their w² [n], spread over the tokens; of the
  // inputs of experts, and only where asked for.
  at::Tensor sample = {}, sample_weights = {};
};

// The role whose input stands for that of `role`.
model::Role site_of(model::Role role);

// Watches a layer pass; holds the moments of the experts [first, last) and,
// where asked for, of the matrices that every token passes.
class HessianTap : public model::LayerTap {
 public:
  struct Range {
    std::int64_t first_expert = 0;
    std::int64_t last_expert = 0;
    bool others = false;
    // Rows of each micro-batch that an expert's sample takes in.
    std::int64_t sample_rows = 0;
  };
  // Both must outlive the tap.
  HessianTap(
      const HessianOptions& options,
      const model::LayerWeights& weights,
      const Range& range);

  bool wants_experts() const override;
  void on_routing(std::int64_t, const model::RoutingView& view) override;
  void on_expert(std::int64_t, const model::ExpertView& view) override;
  void on_projection(
      std::int64_t, model::Role role, const at::Tensor& x) override;

  // Visits all moments and counts of `layer`, as an observer's for_each_sum.
  void for_each_sum(
      const model::ModelConfig& config,
      std::int64_t layer,
      const sweep::SumVisitor& visit);
  // Behind the last such visit: the counts are those that were added up.
  void end_sums();

  // The moments of the input of all experts, each token counted once.
  const Hessian& of_layer() const { return of_layer_; }
  // The moments of a weight's input; `sum` is undefined where no token came by.
  const Hessian& of(model::Role role, std::int64_t expert = -1) const;

 private:
  using Key = std::pair<model::Role, std::int64_t>;
  bool watches(std::int64_t expert) const {
    return expert >= range_.first_expert && expert < range_.last_expert;
  }
  void add(const Key& key, const at::Tensor& x, const at::Tensor& weight);
  void sample(const model::ExpertView& view);
  void add_for_all(std::int64_t expert, const model::RoutingView& view);

  const HessianOptions& options_;
  const model::LayerWeights& weights_;
  Range range_;
  std::map<Key, Hessian> sums_;
  Hessian of_layer_;
  Hessian none_;
  at::Tensor counts_;  // int64: tokens of each sum, while they are shown
};

// Bytes of the moments of one expert, and of all that every token passes.
std::int64_t expert_hessian_bytes(
    const model::ModelConfig& config, std::int64_t layer, std::int64_t expert);
std::int64_t other_hessian_bytes(
    const model::ModelConfig& config, std::int64_t layer);

}  // namespace fettle::quant
