// SPDX-License-Identifier: Apache-2.0
#include "trim/expert_moments.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace fettle::trim {

ExpertMoments::ExpertMoments(
    std::vector<std::int64_t> widths, at::Device device)
    : widths_(std::move(widths)),
      wanted_(widths_.size(), false),
      tokens_(widths_.size(), 0),
      sums_(widths_.size()),
      energy_(at::zeros(
          {static_cast<std::int64_t>(widths_.size())},
          at::dtype(at::kDouble).device(device))) {}

ExpertMoments::Sums ExpertMoments::zeros(std::int64_t expert) const {
  const std::int64_t width = widths_[expert];
  return {
      at::zeros({width, width}, energy_.options().dtype(at::kFloat)),
      at::zeros({width}, energy_.options()),
      at::zeros({}, energy_.options())};
}

void ExpertMoments::for_each_sum(const sweep::SumVisitor& visit) {
  if (!counts_.defined()) counts_ = at::zeros({std::ssize(tokens_)}, at::kLong);
  auto* const counts = counts_.mutable_data_ptr<std::int64_t>();
  for (std::size_t e = 0; e < tokens_.size(); ++e) {
    counts[e] += std::exchange(tokens_[e], 0);
  }
  visit(counts_, ranks::Reduction::kSum);
  visit(energy_, ranks::Reduction::kSum);
  for (std::size_t e = 0; e < sums_.size(); ++e) {
    if (!wanted_[e]) continue;
    Sums& sums = sums_[e];
    if (!sums.second.defined()) sums = zeros(static_cast<std::int64_t>(e));
    visit(sums.second, ranks::Reduction::kSum);
    visit(sums.first, ranks::Reduction::kSum);
    visit(sums.weight, ranks::Reduction::kSum);
  }
}

void ExpertMoments::end_sums() {
  if (!counts_.defined()) return;
  const auto* const counts = counts_.const_data_ptr<std::int64_t>();
  tokens_.assign(counts, counts + tokens_.size());
}

void ExpertMoments::on_expert(std::int64_t, const model::ExpertView& view) {
  const at::NoGradGuard no_grad;
  const std::int64_t e = view.expert;
  const at::Tensor p = view.weight.to(at::kFloat);
  const at::Tensor weighted = view.h.to(at::kFloat) * p.unsqueeze(1);
  tokens_[e] += view.h.size(0);
  energy_.select(0, e).add_(weighted.square().sum(at::kDouble));
  if (!wanted_[e]) return;
  Sums& sums = sums_[e];
  if (!sums.second.defined()) sums = zeros(e);
  sums.second.addmm_(weighted.t(), weighted);
  sums.first.add_(at::mv(weighted.t(), p));
  sums.weight.add_(p.square().sum(at::kDouble));
}

double ExpertMoments::mean_energy() const {
  const std::int64_t neurons =
      std::accumulate(widths_.begin(), widths_.end(), std::int64_t{0});
  return energy_.sum().item<double>() /
         static_cast<double>(std::max<std::int64_t>(neurons, 1));
}

Moments ExpertMoments::take(std::int64_t expert) {
  const Sums sums = std::exchange(sums_[expert], {});
  FETTLE_ASSERT(sums.second.defined());
  return {sums.second.cpu(), sums.first.cpu(), sums.weight.item<double>()};
}

}  // namespace fettle::trim
