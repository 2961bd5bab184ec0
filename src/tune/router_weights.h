// SPDX-License-Identifier: Apache-2.0
// The routers of all sparse layers as a trainable part: fp32 masters, still for
// the first `frozen_steps` steps, then trained with a warm-up of their own. The
// gradient is that of the chosen experts' mixing weights.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/model_reader.h"
#include "tune/adamw.h"
#include "tune/schedule.h"
#include "tune/trainable_part.h"

namespace fettle::tune {

struct RouterWeightsOptions {
  std::int64_t frozen_steps = 0;
  // Of the steps after those; its step 0 is the first that trains.
  Schedule schedule = {};
  AdamWOptions adamw = {};
};

class RouterWeights : public TrainablePart {
 public:
  RouterWeights(
      const model::ModelReader& reader,
      at::Device device,
      const RouterWeightsOptions& options);

  std::string_view name() const override { return "router"; }
  void prepare(const PrepareInput& input) override;
  bool trains(std::int64_t layer) const override;
  std::int64_t trainable_weights() const override;
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  double gradient_norm_squared(std::int64_t layer) const override;
  void update(std::int64_t layer, const UpdateInput& input) override;
  double learning_rate(std::int64_t step) const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_router_gradient(
      std::int64_t layer,
      const at::Tensor& x,
      const at::Tensor& d_logits) override;

 private:
  struct Layer {
    at::Tensor weight;  // [E, H] fp32; undefined in a dense layer
    AdamWState adam;
    at::Tensor gradient;  // [E, H], or undefined outside a step
  };

  RouterWeightsOptions options_;
  at::Device device_;
  std::vector<Layer> layers_;
  bool training_ = false;
};

}  // namespace fettle::tune
