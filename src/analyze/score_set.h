// SPDX-License-Identifier: Apache-2.0
// The scores of one analysis, with the statistics that every analysis keeps, as
// the observers of its sweeps.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "analyze/base_statistics.h"
#include "analyze/score_method.h"
#include "artifact/tensor_file.h"

namespace fettle::analyze {

class ScoreSet {
 public:
  // `names` may repeat. Throws UserError on an unknown one.
  ScoreSet(const ScoreContext& context, const std::vector<std::string>& names);

  bool needs_backward() const { return !backward_.empty(); }
  bool needs_gradient_batches() const;
  // A score that needs all tokens of a layer in one sweep, or "".
  std::string_view needs_one_chunk() const;

  void begin_sweeps(std::span<const GradientBatch> batches);
  std::span<sweep::Observer* const> forward() const { return forward_; }
  std::span<sweep::Observer* const> backward() const { return backward_; }

  // A layer with its sums and the scores made of them. Throws UserError when
  // one is not finite.
  artifact::LayerScores finish(std::int64_t layer) const;

  // All sums so far as tensors; restore() goes on from them.
  artifact::TensorMap state() const;
  void restore(const artifact::TensorMap& state);

 private:
  struct Member {
    std::string name;
    const ScoreMethod* method;  // null: the base statistics
    std::unique_ptr<ScoreObserver> observer;
  };

  const model::ModelConfig& config_;
  bool keep_moments_;
  std::vector<Member> members_;
  std::vector<sweep::Observer*> forward_, backward_;
};

}  // namespace fettle::analyze
