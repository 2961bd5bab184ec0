// SPDX-License-Identifier: Apache-2.0
// Whole weights whose masters and moments are in memory: routers, the experts
// that ESFT chose, or all of a model. Each weight has an fp32 master, moments
// and in a step a gradient: 16 bytes a value.
#pragma once

#include <functional>
#include <vector>

#include "tune/whole/whole_part.h"

namespace fettle::tune {

// The routers of all sparse layers.
WeightIds router_weights(const model::ModelConfig& config);

class WholeWeights : public WholePart {
 public:
  // Where given, chooses the weights before step 0.
  using Choose = std::function<WeightIds(const PrepareInput&)>;

  // Masters, moments and gradients are kept on `device`, where the layers
  // compute or on the CPU; the reader must outlive the part.
  WholeWeights(
      const model::ModelReader& reader,
      at::Device device,
      WholeOptions options,
      Choose choose = {});

  void prepare(const PrepareInput& input) override;
  double gradient_norm_squared(std::int64_t layer) const override;
  void update(std::int64_t layer, const UpdateInput& input) override;
  double global_gradient_norm_squared() const override;
  void update_globals(const UpdateInput& input) override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;

  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void end_head() override;
  void end_embeddings() override;

 protected:
  void put(std::size_t place, const at::Tensor& weight) const override;

 private:
  struct Master {
    at::Tensor value;  // fp32, as packed_view
    AdamWState adam;
  };
  using Gradient = std::function<at::Tensor(const RowPiece& rows)>;

  void make_masters();
  void leave_globals();
  Master master_of(const model::WeightId& id) const;
  at::Tensor stored(std::size_t place) const;
  void step(
      std::size_t place, const UpdateInput& input, const Gradient& gradient);

  at::Device device_;
  Choose choose_;
  std::vector<Master> masters_;  // by place
};

}  // namespace fettle::tune
