// SPDX-License-Identifier: Apache-2.0
// The trainable part of SMT, and of USAF with blocks or single weights: a
// chosen few of the blocks of a model's matrices. Sides of a block need not
// divide those of a matrix.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tune/sparse/block_layout.h"
#include "tune/sparse/block_scorer.h"
#include "tune/sparse/sparse_units.h"

namespace fettle::tune {

struct SparseBlocksOptions {
  std::string name;  // of the part in files
  std::vector<model::Role> roles = {};
  BlockShape block = {};
  BlockScore score = BlockScore::kSignedSum;
  SparseOptions sparse = {};
};

class SparseBlocks : public SparseUnits {
 public:
  // See SparseUnits' constructor.
  SparseBlocks(
      const model::ModelReader& reader,
      at::Device device,
      const SparseBlocksOptions& options);

  std::string_view name() const override { return options_.name; }
  std::int64_t trained_weights(std::int64_t layer) const override;
  void save_adapter(artifact::TensorMap& into) const override;

  bool wants_expert_gradients() const override { return true; }
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_expert_gradient(
      std::int64_t layer, const model::ExpertGradView& view) override;
  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;
  bool wants_projection_gradients() const override { return true; }
  void on_projection_gradient(
      std::int64_t layer,
      model::Role role,
      const at::Tensor& x,
      const at::Tensor& dy) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;

 protected:
  UnitScores score(const PrepareInput& input) const override;
  std::vector<CompactIndex> choose(const PrepareInput& input) const override;
  UnitRows read(std::int64_t layer, const at::Tensor& index) const override;
  void write(
      std::int64_t layer,
      const UnitRows& rows,
      model::LayerWeights& weights) const override;
  void on_active_changed(std::int64_t layer, const at::Tensor& index) override;
  std::vector<UnitRun> unit_runs(std::int64_t layer) const override;

 private:
  // Where the active blocks of a layer lie.
  struct Places {
    std::vector<std::int64_t> ranges{
        0};  // in the index, by matrix, and its end
    // By matrix, ids on the device; in the layer's backward pass only.
    std::vector<BlockLayout::Part> parts;
    WeightGradients beside{{}};  // of MLPs outside the experts
  };
  ProbeRequest request() const;
  // What the weights outside the experts have gathered until now joins the
  // blocks' gradients.
  void fold(std::int64_t layer);
  // Adds the active blocks of leftᵀ right to the gradient of weight `id`.
  void add_product(
      const model::WeightId& id,
      const at::Tensor& left,
      const at::Tensor& right);

  SparseBlocksOptions options_;
  std::vector<BlockLayout> layouts_;
  std::vector<Places> places_;
};

}  // namespace fettle::tune
