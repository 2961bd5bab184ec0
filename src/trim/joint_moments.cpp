// SPDX-License-Identifier: Apache-2.0
#include "trim/joint_moments.h"

#include <numeric>
#include <utility>

namespace fettle::trim {

JointMoments::JointMoments(
    const std::vector<std::int64_t>& widths,
    std::int64_t hidden,
    at::Device device)
    : offsets_(widths.size() + 1, 0),
      tokens_(widths.size(), 0),
      rows_(widths.size()) {
  std::partial_sum(widths.begin(), widths.end(), offsets_.begin() + 1);
  const auto options = at::dtype(at::kFloat).device(device);
  gram_ = at::zeros({offsets_.back(), offsets_.back()}, options);
  right_ = at::zeros({offsets_.back(), hidden}, options);
}

void JointMoments::on_expert(std::int64_t, const model::ExpertView& view) {
  const at::NoGradGuard no_grad;
  rows_[view.expert] = {
      view.tokens,
      view.h.to(at::kFloat) * view.weight.to(at::kFloat).unsqueeze(1)};
  tokens_[view.expert] += view.h.size(0);
}

void JointMoments::for_each_sum(const sweep::SumVisitor& visit) {
  if (!counts_.defined()) {
    counts_ = at::zeros({std::ssize(tokens_)}, at::kLong);
    errors_ = at::zeros({1}, at::kDouble);
  }
  auto* const counts = counts_.mutable_data_ptr<std::int64_t>();
  for (std::size_t e = 0; e < tokens_.size(); ++e) {
    counts[e] += std::exchange(tokens_[e], 0);
  }
  errors_.add_(std::exchange(error_, 0.0));
  for (at::Tensor* sum : {&counts_, &errors_, &gram_, &right_}) {
    visit(*sum, ranks::Reduction::kSum);
  }
}

void JointMoments::end_sums() {
  if (!counts_.defined()) return;
  const auto* const counts = counts_.const_data_ptr<std::int64_t>();
  tokens_.assign(counts, counts + tokens_.size());
  error_ = errors_.item<double>();
}

at::Tensor JointMoments::block(std::int64_t e, std::int64_t f) {
  return gram_.narrow(0, offsets_[e], offsets_[e + 1] - offsets_[e])
      .narrow(1, offsets_[f], offsets_[f + 1] - offsets_[f]);
}

// `place` [N]: the row of each token in expert e's features, or -1.
void JointMoments::add_pair(
    std::int64_t e, std::int64_t f, const at::Tensor& place) {
  const at::Tensor found = place.index_select(0, rows_[f].tokens);
  const at::Tensor common = found.ge(0).nonzero().view({-1});
  if (common.numel() == 0) return;
  const at::Tensor of_e =
      rows_[e].features.index_select(0, found.index_select(0, common));
  const at::Tensor of_f = rows_[f].features.index_select(0, common);
  const at::Tensor product = at::mm(of_e.t(), of_f);
  block(e, f).add_(product);
  block(f, e).add_(product.t());
}

void JointMoments::end_micro_batch(const at::Tensor& error) {
  const at::NoGradGuard no_grad;
  const at::Tensor wide = error.to(at::kFloat);
  error_ += wide.square().sum(at::kDouble).item<double>();
  const auto experts = static_cast<std::int64_t>(rows_.size());
  for (std::int64_t e = 0; e < experts; ++e) {
    const Rows& rows = rows_[e];
    if (!rows.tokens.defined()) continue;
    const std::int64_t width = offsets_[e + 1] - offsets_[e];
    right_.narrow(0, offsets_[e], width)
        .addmm_(rows.features.t(), wide.index_select(0, rows.tokens));
    block(e, e).add_(at::mm(rows.features.t(), rows.features));
    const at::Tensor place =
        at::full({error.size(0)}, -1, rows.tokens.options());
    place.index_copy_(
        0, rows.tokens, at::arange(rows.tokens.size(0), place.options()));
    for (std::int64_t f = e + 1; f < experts; ++f) {
      if (rows_[f].tokens.defined()) add_pair(e, f, place);
    }
  }
  rows_.assign(rows_.size(), {});
}

}  // namespace fettle::trim
