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

void ExpertMoments::on_expert(std::int64_t, const model::ExpertView& view) {
  const at::NoGradGuard no_grad;
  const std::int64_t e = view.expert;
  const at::Tensor p = view.weight.to(at::kFloat);
  const at::Tensor weighted = view.h.to(at::kFloat) * p.unsqueeze(1);
  tokens_[e] += view.h.size(0);
  energy_.select(0, e).add_(weighted.square().sum(at::kDouble));
  if (!wanted_[e]) return;
  Sums& sums = sums_[e];
  if (!sums.second.defined()) {
    const std::int64_t width = view.h.size(1);
    sums.second = at::zeros({width, width}, weighted.options());
    sums.first = at::zeros({width}, energy_.options());
    sums.weight = at::zeros({}, energy_.options());
  }
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
