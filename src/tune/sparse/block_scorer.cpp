// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/block_scorer.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "model/weights/weight_view.h"
#include "tune/sparse/unit_rows.h"

namespace fettle::tune {

namespace {

std::vector<model::WeightId> ids_of(const BlockLayout& layout) {
  std::vector<model::WeightId> ids;
  for (const BlockMatrix& matrix : layout.matrices()) ids.push_back(matrix.id);
  return ids;
}

// Where scores are equal, the block of the lower number is taken.
CompactIndex best_of(const at::Tensor& scores, double share) {
  const std::int64_t all = scores.size(0);
  if (all == 0) return {};
  const auto count = std::clamp<std::int64_t>(
      std::llround(share * static_cast<double>(all)), 1, all);
  const at::Tensor on_host = at::nan_to_num(scores.cpu(), 0.0);
  at::Tensor ranked = on_host.clone();
  float* begin = ranked.mutable_data_ptr<float>();
  std::nth_element(begin, begin + count - 1, begin + all, std::greater<>());
  const float least = begin[count - 1];
  const std::int64_t above = std::count_if(
      begin, begin + count, [&](float score) { return score > least; });
  ranked.reset();
  std::int64_t equal = count - above;
  at::Tensor best = at::empty({count}, at::kLong);
  auto* next = best.mutable_data_ptr<std::int64_t>();
  const float* score = on_host.const_data_ptr<float>();
  for (std::int64_t i = 0; i < all; ++i) {
    if (score[i] > least || (score[i] == least && equal-- > 0)) *next++ = i;
  }
  return CompactIndex(best);
}

}  // namespace

BlockScorer::BlockScorer(
    const std::vector<BlockLayout>& layouts, BlockScore kind, double best_share)
    : layouts_(layouts),
      kind_(kind),
      best_share_(best_share),
      scores_(layouts.size()),
      best_(layouts.size()) {}

void BlockScorer::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward) return;
  if (kind_ == BlockScore::kSquares) {
    sums_ = at::zeros(
        {layouts_[layer].count()},
        at::dtype(at::kFloat).device(weights.device()));
    return;
  }
  gradients_ = std::make_unique<WeightGradients>(ids_of(layouts_[layer]));
  gradients_->begin_layer(pass, weights);
}

void BlockScorer::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  if (kind_ == BlockScore::kSquares) {
    add_squares(layer, view);
  } else {
    gradients_->on_expert_gradient(view);
  }
}

void BlockScorer::add_squares(
    std::int64_t layer, const model::ExpertGradView& view) {
  const at::NoGradGuard no_grad;
  const BlockLayout& layout = layouts_[layer];
  const auto add =
      [&](model::Role role, const at::Tensor& left, const at::Tensor& right) {
        const std::int64_t place = layout.find({role, layer, view.expert});
        if (place < 0) return;
        const BlockMatrix& matrix = layout.matrices()[place];
        sums_.narrow(0, matrix.first, matrix.grid.count())
            .add_(block_sums(matrix.grid, at::mm(left.t(), right).square_()));
      };
  add(model::Role::kExpertGate, view.d_gate(), view.x);
  add(model::Role::kExpertUp, view.d_up(), view.x);
  add(model::Role::kExpertDown, view.dy, view.h);
}

at::Tensor BlockScorer::signed_sums(std::int64_t layer) {
  const BlockLayout& layout = layouts_[layer];
  at::Tensor sums = at::zeros({layout.count()});
  for (std::size_t m = 0; m < layout.matrices().size(); ++m) {
    const BlockMatrix& matrix = layout.matrices()[m];
    const at::Tensor& gradient = (*gradients_)[m];
    if (!gradient.defined()) continue;
    const at::Tensor stored =
        model::is_down_role(matrix.id.role) ? gradient.t() : gradient;
    sums.narrow(0, matrix.first, matrix.grid.count())
        .copy_(block_sums(matrix.grid, stored.abs()));
  }
  return sums;
}

void BlockScorer::for_each_sum(
    sweep::Pass pass, std::int64_t, const sweep::SumVisitor& visit) {
  if (pass != sweep::Pass::kBackward) return;
  if (gradients_) {
    gradients_->for_each_sum(visit);
  } else {
    visit(sums_, ranks::Reduction::kSum);
  }
}

void BlockScorer::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass != sweep::Pass::kBackward) return;
  if (gradients_) {
    gradients_->end_layer(pass);
    sums_ = signed_sums(layer);
    gradients_.reset();
  } else {
    sums_.sqrt_();
  }
  if (best_share_ > 0.0) {
    best_[layer] = best_of(sums_, best_share_);
  } else {
    const at::Tensor values = sums_.to(at::kCPU, at::kDouble);
    const double* begin = values.const_data_ptr<double>();
    scores_[layer].assign(begin, begin + values.size(0));
  }
  sums_.reset();
}

}  // namespace fettle::tune
