// SPDX-License-Identifier: Apache-2.0
// Gradients of weights outside the layers, summed over a step: the head's
// and the final norm's where the loss is taken, the embeddings' at the end of
// the backward sweep, there only the rows of tokens that occur. A tied head is
// the embeddings: both add up.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <vector>

#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "sweep/observer.h"
#include "tune/part/row_pieces.h"

namespace fettle::tune {

class GlobalGradients {
 public:
  // Some of embeddings, final norm and head, in any order. The configuration
  // must outlive the object.
  GlobalGradients(
      std::vector<model::WeightId> ids, const model::ModelConfig& config);

  const std::vector<model::WeightId>& ids() const { return ids_; }
  bool has(model::Role role) const;

  // Call these from an observer's functions of the same names.
  void on_head_gradient(const sweep::HeadGradView& view);
  void on_embedding_gradient(const at::Tensor& ids, const at::Tensor& gradient);
  void for_each_head_sum(at::Device device, const sweep::SumVisitor& visit);
  void for_each_embedding_sum(const sweep::SumVisitor& visit);

  // Some rows of the gradient of ids()[i], fp32: on the device that formed it,
  // but for rows that only the embeddings have, which are on the CPU. Before
  // any gradient came: zeros.
  at::Tensor rows(std::size_t i, const RowPiece& rows) const;
  double norm_squared(std::size_t i) const;
  void clear();

 private:
  bool has_head() const;
  bool head_is_embedding() const { return config_->tie_word_embeddings; }
  void add_embeddings(const RowPiece& rows, at::Tensor& into) const;

  std::vector<model::WeightId> ids_;
  const model::ModelConfig* config_;
  at::Tensor head_;  // [V, H] fp32, or undefined
  at::Tensor norm_;  // [H] fp32, or undefined
  // Row of embedded_ [.., H] fp32 on the CPU that a token's gradient is in.
  std::map<std::int64_t, std::int64_t> place_of_;
  at::Tensor embedded_;
  // Sums over shards need the same rows in each: those of all tokens.
  bool all_rows_ = false;
};

}  // namespace fettle::tune
