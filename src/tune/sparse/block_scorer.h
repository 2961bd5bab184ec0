// SPDX-License-Identifier: Apache-2.0
// Watches one backward sweep and says how strongly the loss pulls at each
// block, layer by layer as the layers' gradients become complete, so that no
// more than one layer's gradients exist at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "sweep/observer.h"
#include "tune/sparse/block_layout.h"
#include "tune/sparse/compact_index.h"
#include "tune/sparse/selection.h"
#include "tune/whole/weight_gradients.h"

namespace fettle::tune {

enum class BlockScore {
  // Mean over the block of |sum of the gradient over all tokens|.
  // Source: He et al., "Sparse Matrix in Large Language Model Fine-tuning"
  // (SMT), 2024, section 3.
  kSignedSum,
  // Root of the sum, over micro-batches, of the squared norm of the block's
  // gradient in one; of experts' matrices only.
  kSquares,
};

class BlockScorer : public sweep::Observer {
 public:
  // The layouts must outlive the scorer. With `best_share` above 0 the scores
  // of a layer are dropped for the numbers of its best blocks.
  BlockScorer(
      const std::vector<BlockLayout>& layouts,
      BlockScore kind,
      double best_share = 0.0);

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
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;

  const UnitScores& scores() const { return scores_; }
  const std::vector<CompactIndex>& best() const { return best_; }

 private:
  void add_squares(std::int64_t layer, const model::ExpertGradView& view);
  at::Tensor signed_sums(std::int64_t layer);

  const std::vector<BlockLayout>& layouts_;
  BlockScore kind_;
  double best_share_;
  std::unique_ptr<WeightGradients> gradients_;  // of the layer in progress
  at::Tensor sums_;                             // [count] fp32, likewise
  UnitScores scores_;
  std::vector<CompactIndex> best_;
};

}  // namespace fettle::tune
